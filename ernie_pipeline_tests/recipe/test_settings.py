import os
from pathlib import Path

import pytest

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.quantized_base import FOLDER
from ernie_pipeline.utils.errors import PipelineError

VARIABLES = ("ERNIE_PIPELINE_HOME", "ERNIE_PIPELINE_RECIPE", "ERNIE_PIPELINE_SOURCE", "MLFLOW_TRACKING_URI")
WHEN = ("ERNIE_PIPELINE_CRON", "ERNIE_PIPELINE_TIMEZONE", "ERNIE_PIPELINE_SENSOR_SECONDS")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in (*VARIABLES, *WHEN):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("value", [None, ""])
def test_unset_and_empty_variables_mean_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    for variable in (*VARIABLES, *WHEN) if value is not None else ():
        monkeypatch.setenv(variable, value)
    settings = Settings.from_environment()
    assert settings.home == tmp_path / ".ernie"
    assert (settings.recipe, settings.source) == ("demo", None)
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.ernie/mlflow.db"
    assert (settings.cron, settings.timezone, settings.sensor_seconds) == ("0 2 * * *", "UTC", 300)


def test_quantized_bases_lie_in_the_store_and_are_no_stage_of_it(tmp_path: Path) -> None:
    settings = Settings.from_environment()
    (settings.store / FOLDER / "a").mkdir(parents=True)
    (settings.store / "base_model").mkdir()
    assert ArtifactStore(settings.store).stages() == ["base_model"]


def test_when_to_refresh_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in zip(WHEN, ("*/5 * * * *", "Europe/Paris", "60"), strict=True):
        monkeypatch.setenv(variable, value)
    settings = Settings.from_environment()
    assert (settings.cron, settings.timezone, settings.sensor_seconds) == ("*/5 * * * *", "Europe/Paris", 60)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "often", "²"])
def test_no_number_of_seconds_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_SENSOR_SECONDS", value)
    with pytest.raises(PipelineError) as caught:
        Settings.from_environment()
    assert str(caught.value) == (
        f"ERNIE_PIPELINE_SENSOR_SECONDS = {value!r} is not a whole number of seconds above 0; set one"
    )


def test_the_four_variables_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = (str(tmp_path / "home"), "reference", "rows.jsonl", "http://localhost:5000")
    for variable, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(variable, value)
    settings = Settings.from_environment()
    assert (str(settings.home), settings.recipe, settings.source, settings.tracking_uri) == values


def test_everything_that_is_kept_lies_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "here")
    settings = Settings.from_environment()
    assert settings.store == tmp_path / "here" / "store"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/here/mlflow.db"


def test_a_tilde_in_the_home_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "~/ernie")
    assert Settings.from_environment().home == tmp_path / "someone" / "ernie"


def test_the_home_stays_where_it_was_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_environment()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert settings.store == tmp_path / ".ernie" / "store"


def test_recipe_and_source_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPE", "reference")
    monkeypatch.setenv("ERNIE_PIPELINE_SOURCE", "someone/maths")
    recipe = Settings.from_environment().load_recipe()
    assert (recipe.training.max_steps, recipe.source.dataset, recipe.source.kind) == (700, "someone/maths", "hub")


def test_a_recipe_that_is_not_there_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_RECIPE", "zzz")
    with pytest.raises(PipelineError, match=r"'zzz' is neither a preset \(best, demo, .*ERNIE_PIPELINE_RECIPE"):
        Settings.from_environment().load_recipe()


HARD = "100 % ? #1 + ä"


def test_mlflow_opens_the_database_in_the_home_whatever_the_home_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / HARD))
    settings = Settings.from_environment()
    settings.check_places()
    with connected(settings.tracking_uri) as client:
        client.create_registered_model("quick")
    assert [path.name for path in tmp_path.iterdir()] == [HARD]
    assert (tmp_path / HARD / "mlflow.db").is_file()


def test_a_home_that_mlflow_takes_for_another_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "100%20x" / "home"))
    with pytest.raises(PipelineError, match=r"^ERNIE_PIPELINE_HOME = '.*/100%20x/home' has '%20' in it, which MLflow"):
        Settings.from_environment().check_places()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")  # a server keeps the models elsewhere
    Settings.from_environment().check_places()


def test_a_home_below_a_file_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(home))
        with pytest.raises(PipelineError, match=f"'{home}' cannot be a folder, because {tmp_path}/file is a file; set"):
            Settings.from_environment().check_places()


@pytest.mark.parametrize(
    "address",
    ["file:./mlruns", "./mlruns", "/tmp/mlruns", "file:///tmp/x", "sqlite://", "sqlite:///:memory:", "ftp://x"],
)
def test_an_address_where_mlflow_keeps_no_registry_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(PipelineError, match=f"MLFLOW_TRACKING_URI = '{address}' names no place .*; set it to a server"):
        Settings.from_environment().check_places()


@pytest.mark.parametrize(
    "address",
    [
        "http://me:s3cret@host:5000",
        "sqlite:////tmp/x.db",
        "sqlite:///x.db",
        "databricks",
    ],
)
def test_an_address_that_mlflow_may_open_is_left_to_it(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    Settings.from_environment().check_places()


def test_a_database_without_its_driver_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+asyncmy://me:s3cret@host/db")  # SQLAlchemy knows it, nobody has it
    with pytest.raises(
        PipelineError, match=r"^MLFLOW_TRACKING_URI = 'mysql\+asyncmy://host/db' needs the Python module asyncmy, which"
    ):
        Settings.from_environment().check_places()


def test_a_home_that_cannot_be_made_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """In /proc not even root makes a folder."""
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "/proc/home")
    settings = Settings.from_environment()
    settings.check_places()  # to look there is no mistake: all is missing
    with pytest.raises(PipelineError, match=r"^ERNIE_PIPELINE_HOME = '/proc/home' cannot be written \(No such file"):
        open_chain(settings, run="a run")


def test_a_home_that_may_not_be_written_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path))
    settings = Settings.from_environment()
    settings.make_home()
    settings.store.chmod(0o555)
    monkeypatch.setattr(os, "access", lambda place, mode: bool(Path(place).stat().st_mode & 0o222))  # root may all
    with pytest.raises(PipelineError, match=r"you may not write \S+/store, which is yours; run chmod -R u\+rwX"):
        settings.make_home()
    settings.store.chmod(0o755)
    settings.make_home()
