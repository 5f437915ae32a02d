"""A home that was copied or renamed has its own files in MLflow, and leaves those of the other alone."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe.settings import sqlite_uri
from ernie_pipeline.registry.moved_home import PLACES, renew_places
from ernie_pipeline.registry.opened import opened_model, opened_run
from ernie_pipeline.registry.tracking import connected, ensure_experiment
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.cli.registered import RegisteredHome, make_home
from ernie_pipeline_tests.staleness.chains import tree

Ask = Callable[..., "dict[str, Any]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RegisteredHome:
    return make_home(tmp_path_factory.mktemp("a home's [own] place"), versions=1)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What a command says of a home as JSON."""

    def run(home: RegisteredHome, *arguments: str) -> dict[str, Any]:
        for name, value in home.environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        main([*arguments, "--json"])
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return run


def places(home: RegisteredHome) -> set[str]:
    """The folders that the database names, each up to the first "mlartifacts"."""
    with sqlite3.connect(home.folder / "home" / "mlflow.db") as database:
        found = [database.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in PLACES]
    return {str(place).partition("/mlartifacts")[0] for rows in found for (place,) in rows if "mlartifacts" in place}


def write(home: RegisteredHome) -> Path:
    """Let MLflow keep a run's file and a model's file, as a registration does; where the model's is."""
    with connected(home.settings.tracking_uri) as client:
        experiment = ensure_experiment(client, "quick", home.settings.artifact_root)
        with (
            opened_run(client, experiment, "again", "", {}) as run_id,
            opened_model(client, experiment, run_id, "again", "adapter", {}) as logged,
        ):
            client.log_text(run_id, "figures", "figures.txt")
            client.log_model_artifacts(logged.model_id, str(home.files("1")))
            return Path(logged.artifact_location.removeprefix("file://"))


def test_a_copy_writes_and_reads_its_own_files_and_alters_nothing_of_the_home_that_it_was_copied_from(
    made: RegisteredHome, tmp_path: Path, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    before, copy = tree(made.folder), made.copy(tmp_path / "copy")
    [adapter] = copy.files("1").rglob("adapter_model.safetensors")
    adapter.write_bytes(b"of the copy")
    registered = {each["asset"]: each["reasons"] for each in ask(copy, "plan")["assets"]}["registered_model"]
    assert str(copy.files("1")) in str(registered), "a plan looks at the copy's files"
    assert places(copy) == places(made), "and makes nothing by looking"
    steps = {each["name"]: each for each in ask(copy, "verify", "--files")["steps"]}
    assert steps["files"]["said"] == "adapter/adapter_model.safetensors was altered"
    assert caplog.messages == [
        f"{tmp_path}/copy/home was copied or moved from {made.folder}/home: MLflow's database in it leads to its own "
        "files now"
    ]
    written = write(copy)
    assert written.is_relative_to(tmp_path / "copy" / "home" / "mlartifacts")
    assert len(list((tmp_path / "copy" / "home" / "mlartifacts").rglob("figures.txt"))) == 1
    assert tree(made.folder) == before
    assert places(copy) == {(tmp_path / "copy" / "home").as_uri()}
    assert {each["outcome"] for each in ask(made, "verify", "--files")["steps"]} <= {"passed", "unchecked"}
    assert len(caplog.messages) == 1, "it is told once"


def test_a_home_that_was_renamed_finds_its_files_and_writes_beside_them(
    made: RegisteredHome, tmp_path: Path, ask: Ask
) -> None:
    first = made.copy(tmp_path / "first")
    renew_places(first.settings.tracking_uri)
    second = RegisteredHome((tmp_path / "first").rename(tmp_path / "second"))
    recipe = tmp_path / "second" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(first.folder), str(second.folder)))
    assert {each["outcome"] for each in ask(second, "verify", "--files")["steps"]} <= {"passed", "unchecked"}
    assert write(second).is_relative_to(tmp_path / "second")
    assert not (tmp_path / "first").exists()


def test_a_home_that_shares_another_s_database_keeps_its_files(made: RegisteredHome, tmp_path: Path) -> None:
    """One whose MLFLOW_TRACKING_URI is the other's: it has no database, and is no copy."""
    home = made.copy(tmp_path / "its")
    shutil.copytree(made.folder / "home", tmp_path / "guest")
    (tmp_path / "guest" / "mlflow.db").unlink()
    for table, column in PLACES:
        old, new = (made.folder / "home").as_uri(), (tmp_path / "guest").as_uri()
        home.sql(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", old, new)
    assert renew_places(home.settings.tracking_uri) == ""
    assert places(home) == {(tmp_path / "guest").as_uri()}
    shutil.rmtree(tmp_path / "its" / "home" / "store")
    shutil.copy(made.folder / "home" / "mlflow.db", home.folder / "home")
    assert renew_places(home.settings.tracking_uri) == "", "a database beside no store is no home's"
    assert renew_places(sqlite_uri(tmp_path / "none.db")) == ""


def test_a_copy_that_cannot_be_renewed_is_refused(made: RegisteredHome, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy" / "home" / "mlflow.db") as held:
        held.execute("CREATE TRIGGER t BEFORE UPDATE ON runs BEGIN SELECT raise(ABORT, 'not writable'); END")
    with pytest.raises(PipelineError, match=r"still leads to the files there; make it one .*\(not writable\)"):
        write(copy)
    assert places(copy) == places(made), "all of it is renewed, or nothing"
