"""`doctor`: each thing with what to do; no token's value; exit status 1 only where nothing can work."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.cli import doctor
from ernie_pipeline.cli.app import main


@pytest.fixture
def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Any":
    for name in (*doctor.TOKENS, "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "ERNIE_PIPELINE_RECIPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))

    def look() -> tuple[int, dict[str, dict[str, str]], str]:
        status = main(["doctor", "--json"])
        said = capsys.readouterr().out
        return status, {each["name"]: each for each in json.loads(said)["findings"]}, said

    return look


def test_here_it_can_work_and_nothing_is_made_by_looking(looked: Any, tmp_path: Path) -> None:
    status, found, _ = looked()
    assert status == 0
    assert {"Python", "torch", "dagster", "GPU", "memory", "home", "recipe", "DAGSTER_HOME", "port 3000"} <= {*found}
    assert all(each["cure"] for each in found.values() if each["state"] != "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_token_is_told_to_be_there_and_never_shown(looked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked()[1]["HF_TOKEN"]["found"] == "not set"
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAs3cret")
    _, found, said = looked()
    assert (found["HF_TOKEN"]["found"], found["AWS_ACCESS_KEY_ID"]["found"]) == ("set", "set")
    assert "s3cret" not in said


def test_a_port_in_use_and_a_dagster_home_without_settings_are_notes(
    looked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {port: "ernie serve"})
        status, found, _ = looked()
    assert status == 0
    assert (found[f"port {port}"]["state"], found[f"port {port}"]["found"]) == ("note", "in use")
    assert found["DAGSTER_HOME"]["cure"].startswith("it has no dagster.yaml")


def test_a_dagster_yaml_that_dagster_does_not_take_is_what_nothing_can_work_with(
    looked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text("storag: {x: 1}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    status, found, _ = looked()
    assert (status, found["DAGSTER_HOME"]["state"]) == (1, "bad")
    assert found["DAGSTER_HOME"]["cure"].startswith(f"{tmp_path / 'dagster.yaml'} is not one that Dagster takes (")
    assert [file.name for file in tmp_path.iterdir()] == ["dagster.yaml"], "nothing is made by looking"


def test_a_home_that_cannot_be_is_what_nothing_can_work_with(
    looked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "file" / "home"))
    status, found, _ = looked()
    assert (status, found["home"]["state"]) == (1, "bad")
    assert "cannot be a folder" in found["home"]["cure"]
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "/proc/home")
    _, found, _ = looked()
    assert (found["home"]["state"], found["home"]["found"]) == ("bad", "/proc/home"), "and not how full the disk is"
    assert found["home"]["cure"] == "/proc cannot be written: set --home to a folder that can"
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "file" / "home"))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("\nNothing can work before this is mended: home.\n")


def test_dagster_s_settings_are_the_example_s() -> None:
    root = Path(doctor.__file__).parents[2]
    packaged = (root / "ernie_pipeline" / "orchestration" / "dagster.yaml").read_text()
    assert packaged == (root / "deploy" / "dagster.yaml").read_text()
