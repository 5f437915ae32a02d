"""The format of a home: said by what is written, and a newer one is left alone by every command and step."""

import json
from pathlib import Path

import dagster as dg
import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe import home_format
from ernie_pipeline.recipe.home_format import FILE, check_format, write_format
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.utils.errors import PipelineError

COMMANDS = (
    "run",
    "plan",
    "refresh",
    "up",
    "ask q",
    "chat",
    "serve",
    "compare 1 2",
    "compare base base",
    "verify",
    "promote 1",
    "rollback",
    "export peft OUT",
    "store list",
    "store verify",
    "store prune",
    "store prune --delete",
    "recipe check",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("ERNIE_PIPELINE_RECIPE", "ERNIE_PIPELINE_RECIPES", "MLFLOW_TRACKING_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def newer(home: Path) -> Path:
    (home / "store").mkdir(parents=True)
    (home / "store" / FILE).write_text("7\n")
    (home / "mlflow.db").touch()
    return home


def everything(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*")}


def test_a_home_says_its_format_once_something_is_written_in_it(home: Path) -> None:
    settings = Settings.from_environment()
    open_chain(settings)
    assert not home.exists(), "to look writes nothing"
    settings.make_home()
    assert (home / "store" / FILE).read_text() == f"{home_format.FORMAT}\n"
    assert [path.name for path in (home / "store").iterdir()] == [FILE]


def test_a_home_of_before_is_of_format_1_and_says_so_from_its_next_build_on(home: Path) -> None:
    (home / "store" / "math_split" / "f00d").mkdir(parents=True)
    settings = Settings.from_environment()
    settings.check_places()
    assert check_format(settings.store) is None
    settings.make_home()
    assert check_format(settings.store) == 1


def test_a_format_is_raised_by_what_is_written_and_never_lowered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment()
    settings.make_home()
    monkeypatch.setattr(home_format, "FORMAT", 2)
    settings.check_places()  # an older one is read
    assert (home / "store" / FILE).read_text() == "1\n"
    settings.make_home()
    assert (home / "store" / FILE).read_text() == "2\n"
    monkeypatch.setattr(home_format, "FORMAT", 1)
    with pytest.raises(PipelineError, match=r"\.format says that this home is of format 2"):
        settings.make_home()
    assert (home / "store" / FILE).read_text() == "2\n"


def test_of_two_that_write_at_once_the_newer_format_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = home / "store"
    store.mkdir(parents=True)
    link = home_format.os.link

    def first_another(source: Path, target: Path) -> None:
        Path(target).write_text("2\n")
        link(source, target)

    monkeypatch.setattr(home_format.os, "link", first_another)
    with pytest.raises(PipelineError, match="of format 2"):
        write_format(store)
    assert [(path.name, path.read_text()) for path in store.iterdir()] == [(FILE, "2\n")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_newer_home_and_changes_nothing(
    command: str, newer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(newer)
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert f"{newer}/store/.format says that this home is of format 7" in said
    assert "upgrade ernie_pipeline" in said
    assert said.count("\n") == 1
    assert everything(newer) == before


def test_the_doctor_names_it(newer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 1
    findings = {each["name"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["home"]["state"] == "bad"
    assert "of format 7" in findings["home"]["cure"]


def test_dagster_s_steps_refuse_it_before_anything_is_written(newer: Path) -> None:
    from ernie_pipeline.definitions import defs

    before = everything(newer)
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=dg.DagsterInstance.ephemeral(),
        asset_selection=[dg.AssetKey("raw_nemotron")],
        raise_on_error=False,
    )
    assert not result.success
    failed = result.failure_data_for_node("raw_nemotron")
    assert failed
    assert "of format 7" in str(failed.user_failure_data.description)
    assert everything(newer) == before


@pytest.mark.parametrize("said", ["", "1.5", "two", "-1", "0"])
def test_what_tells_no_format_is_told(said: str, newer: Path) -> None:
    (newer / "store" / FILE).write_text(said)
    with pytest.raises(PipelineError, match=r"store/\.format does not tell a format by its number"):
        Settings.from_environment().check_places()


def test_a_folder_in_its_place_is_told(home: Path) -> None:
    (home / "store" / FILE).mkdir(parents=True)
    with pytest.raises(PipelineError, match="is no file, so the format of this home is not known"):
        Settings.from_environment().make_home()


@pytest.mark.parametrize("command", ["verify", "prune", "prune --delete"])
def test_the_store_s_keeper_leaves_it_alone(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Settings.from_environment().make_home()
    assert main(["store", *command.split(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said.get("damaged")
    assert not said.get("artifacts")
    assert ".format" not in json.dumps(said)
    assert check_format(home / "store") == home_format.FORMAT
