"""`compare`: two models by the answers that the store has of them."""

import json
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline_tests.cli.registered import HELD_OUT, RegisteredHome, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> RegisteredHome:
    return make_home(tmp_path_factory.mktemp("compared"))


@pytest.fixture(autouse=True)
def environment(home: RegisteredHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)


def test_base_and_version_are_compared_as_when_it_was_registered(
    home: RegisteredHome, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads((home.artifact("registered_model") / "comparison.json").read_text())
    assert main(["compare", "base", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["comparison"] == recorded
    assert len(said["better"]) == recorded["only_after"]
    assert len(said["worse"]) == recorded["only_before"]
    metrics = json.loads((home.artifact("base_evaluation") / "metrics.json").read_text())
    assert said["models"]["base"]["accuracy"] == metrics["accuracy"]

    assert main(["compare", "base", home.artifact("adapter_evaluation").name]) == 0, "the same by its fingerprint"
    text = capsys.readouterr().out
    assert f"{100 * recorded['gain']:+.1f} points (95 % interval " in text
    assert "is higher although more of its answers are right: it is measured" in text
    assert main(["compare", "champion", "base", "--json"]) == 0
    back = json.loads(capsys.readouterr().out)
    assert back["loss_note"].startswith("The loss of champion is higher although more of its answers are right")
    assert back["comparison"]["gain"] == -recorded["gain"]
    assert sum(back["comparison"][key] for key in ("both_correct", "only_before", "only_after", "neither")) == len(
        HELD_OUT
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("best", "no version of quick with the alias best in the registry; its aliases: challenger, champion"),
        ("99", "99"),
    ],
)
def test_what_there_is_not_is_told(named: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "base", named]) == 1
    assert said in capsys.readouterr().err


def test_another_home_does_not_know_the_version(
    home: RegisteredHome, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.settings.tracking_uri)
    assert main(["compare", "base", "1", "--home", str(tmp_path / "other")]) == 1
    assert "models:/quick/1 was not registered from this home" in capsys.readouterr().err
