"""Whether a registered version is still there: read from the database, and asked of MLflow, with the same answer."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry import lookup
from ernie_pipeline.registry.lookup import Registered
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.staleness.elsewhere import registered_as
from ernie_pipeline.store.sealed import list_files
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness.chains import tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry and the files of its versions: 1 and 2 are checked, 3 is not, and 4 was deleted."""
    home = tmp_path_factory.mktemp("a registry")
    with connected(uri(home)) as client:
        client.create_registered_model("quick")
        client.create_registered_model("empty")
        for number, tags in enumerate([{CHECKED: "0.0"}, {CHECKED: "0.1"}, {}, {CHECKED: "0.0"}]):
            files = home / "files %41" / str(number + 1)
            files.mkdir(parents=True)
            client.create_model_version("quick", source=files.as_uri(), tags=tags)
        client.delete_model_version("quick", "4")
        client.set_registered_model_alias("quick", "champion", "1")
        client.set_registered_model_alias("quick", "challenger", "2")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of the database alone, to be damaged."""
    shutil.copy(database(made), database(tmp_path))
    return tmp_path


def uri(home: Path) -> str:
    return f"sqlite:///{home}/mlflow %231%20%.db?timeout=5"


def database(home: Path) -> Path:
    """Where MLflow keeps what it is told to keep at `uri`."""
    return home / "mlflow #1 %.db"


VERSIONS = [
    ("quick", "1"),
    ("quick", "2"),
    ("quick", "3"),
    ("quick", "4"),
    ("quick", "99"),
    ("empty", "1"),
    ("no", "1"),
]


@pytest.mark.parametrize(("name", "version"), [*VERSIONS, ("quick", "")])
def test_the_database_and_mlflow_give_the_same_answer(made: Path, name: str, version: str) -> None:
    client = lookup._by_client(uri(made), name, version)
    assert lookup._find(uri(made), Registered(name, version)) == client
    assert (client is not None) == ((name, version) in [("quick", "1"), ("quick", "2")])
    assert lookup.is_registered(uri(made), name, version) == (client is not None)


def test_a_local_registry_is_read_without_mlflow(made: Path) -> None:
    """So there is no import of seconds on every run: the plan's and the refresh's tests hold the modules to that."""
    found = lookup._in_sqlite(database(made), "quick", "1")
    assert found == lookup.Found((made / "files %41" / "1").as_uri(), {"challenger": "2", "champion": "1"})


def test_what_is_lost_is_told_in_a_clause(made: Path) -> None:
    before, shown = tree(made), uri(made).partition("?")[0]
    assert lookup.what_is_lost(uri(made), Registered("quick", "1")) == ""
    assert (
        lookup.what_is_lost(uri(made), Registered("quick", "99"))
        == f"version 99 of quick is not in the registry at {shown}"
    )
    assert tree(made) == before, "looking writes nothing"


def test_a_version_whose_files_are_gone_is_lost_but_registered(home: Path, made: Path) -> None:
    files = home / "files %41" / "1"
    with sqlite3.connect(database(home)) as connection:
        connection.execute("UPDATE model_versions SET storage_location = ? WHERE version = 1", (files.as_uri(),))
    assert (
        lookup.what_is_lost(uri(home), Registered("quick", "1"))
        == f"the files of version 1 of quick, {files}, are gone"
    )
    assert lookup.is_registered(uri(home), "quick", "1")
    files.mkdir(parents=True)
    assert lookup.what_is_lost(uri(home), Registered("quick", "1")) == ""


@pytest.mark.parametrize(
    ("version", "aliases", "said"),
    [
        ("1", ["champion"], ""),
        ("1", ["challenger", "champion"], ""),  # version 2 is challenger since it was registered
        ("2", ["challenger"], ""),
        ("2", ["challenger", "champion"], "the alias champion of version 2 of quick was given back to version 1"),
        ("2", ["challenger", "best"], "version 2 of quick has lost its alias best"),
    ],
)
def test_an_alias_is_lost_unless_a_later_version_has_it(
    made: Path, version: str, aliases: list[str], said: str
) -> None:
    assert lookup.what_is_lost(uri(made), Registered("quick", version, aliases)) == said


def test_what_seems_to_be_gone_is_asked_of_mlflow(home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an alias of which another version of MLflow would keep account elsewhere."""
    monkeypatch.setattr(lookup, "ALIASES", lookup.ALIASES + " AND 1 = 0")
    assert lookup.what_is_lost(uri(made), Registered("quick", "1", ["champion"])) == ""


def test_a_registered_file_that_was_truncated_deleted_or_altered_is_named(home: Path) -> None:
    folder = home / "files %41" / "1"
    (folder / "adapter").mkdir(parents=True)
    file = folder / "adapter" / "adapter_model.safetensors"
    file.write_bytes(b"weights")
    files = list_files(folder)
    with sqlite3.connect(database(home)) as connection:
        connection.execute("UPDATE model_versions SET storage_location = ? WHERE version = 1", (folder.as_uri(),))
    registered = Registered("quick", "1", ["champion"], files)
    (folder / "__pycache__").mkdir()  # a server may leave that
    assert lookup.what_is_lost(uri(home), registered) == ""
    said = f"version 1 of quick is damaged in {folder}: adapter/adapter_model.safetensors"
    for content in (b"weight", b"Weights"):
        file.write_bytes(content)
        assert lookup.what_is_lost(uri(home), registered) == said
    file.unlink()
    assert lookup.what_is_lost(uri(home), registered) == f"{said} is missing"


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        assert "is not in the registry at sqlite:///" in lookup.what_is_lost(uri(place), Registered("quick", "1"))
    assert list(tmp_path.iterdir()) == []


def test_of_other_tables_mlflow_s_own_client_is_asked(home: Path) -> None:
    with sqlite3.connect(database(home)) as connection:
        connection.execute("ALTER TABLE model_version_tags RENAME TO other_tags")
        connection.execute("CREATE VIEW model_version_tags AS SELECT key, value, name, version FROM other_tags")
    with pytest.raises(sqlite3.Error, match="workspace"):
        lookup._in_sqlite(database(home), "quick", "1")
    with pytest.raises(PipelineError, match="MLflow at sqlite:"):  # it cannot read these tables either, and says so
        lookup.what_is_lost(uri(home), Registered("quick", "1"))


def test_what_is_no_database_is_said_in_one_sentence(tmp_path: Path) -> None:
    database(tmp_path).write_bytes(b"x" * 4096)
    with pytest.raises(PipelineError, match=r"MLflow at sqlite:.* file is not a database"):
        lookup.what_is_lost(uri(tmp_path), Registered("quick", "1"))


def test_an_artifact_is_kept_for_its_registered_version_and_a_damaged_one_for_none(made: Path, tmp_path: Path) -> None:
    settings = Settings(made, "demo", None, uri(made))
    file = tmp_path / "registration.json"
    assert registered_as(settings, tmp_path) == ""
    for registration, said in (
        ({"name": "quick", "version": "2"}, "registered as quick 2"),
        ({"name": "quick", "version": "4"}, ""),
        ({"name": "quick"}, ""),
        ([], ""),
    ):
        file.write_text(json.dumps(registration))
        assert registered_as(settings, tmp_path) == said
    file.write_bytes(b"\xff")
    assert registered_as(settings, tmp_path) == ""
