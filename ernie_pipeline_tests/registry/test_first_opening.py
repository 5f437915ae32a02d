"""Homes that open one new MLflow database at the same time: its tables are made once, and all of them go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_pipeline.registry.first_opening import ANOTHER_WAS_AT_IT
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline_tests.deploy.cluster import binaries, running_cluster

OPENS = """
import sys
from ernie_pipeline.registry.tracking import connected
print("ready", flush=True)
sys.stdin.readline()
with connected(sys.argv[1]) as client:
    client.create_registered_model(sys.argv[2])
"""
NAMES = ("a", "b", "c")


def open_at_once(address: str, folder: Path) -> None:
    """Fail unless each of several processes can use the new database; models of all of them are in it then.

    Each has a temporary folder of its own below `folder`, as containers have: MLflow's own lock is there.
    """
    command = [sys.executable, "-W", "ignore", "-c", OPENS, address]
    pipe, root = subprocess.PIPE, Path(__file__).parents[2]
    started = []
    for name in NAMES:
        (folder / name).mkdir()
        own = os.environ | {"TMPDIR": str(folder / name)}
        given = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True, "cwd": root, "env": own}
        started.append(subprocess.Popen([*command, name], **given))
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert [status for _, status in ended] == [0] * len(NAMES), [said[-600:] for said, _ in ended]
    with connected(address) as client:
        assert sorted(model.name for model in client.search_registered_models()) == list(NAMES)


def test_an_sqlite_file(tmp_path: Path) -> None:
    open_at_once(f"sqlite:///{tmp_path}/new/mlflow.db", tmp_path)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]


def test_a_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg2")
    if not binaries():
        pytest.skip("needs Debian's package postgresql")
    with running_cluster() as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        cluster.sql("CREATE DATABASE mlflow")
        open_at_once("postgresql+psycopg2:///mlflow", tmp_path)


@pytest.mark.parametrize(
    ("said", "is_another"),
    [
        ("(sqlite3.OperationalError) duplicate column name: step", True),
        ('(psycopg2.errors.DuplicateTable) relation "experiments" already exists', True),
        ("UPDATE statement on table 'alembic_version' expected to match 1 row(s); 0 found", True),
        ('connection to server at "db" failed: FATAL: password authentication failed for user "me"', False),
        ("Could not parse SQLAlchemy URL", False),
    ],
)
def test_what_is_tried_again_is_only_what_another_may_have_done(said: str, is_another: bool) -> None:
    assert bool(ANOTHER_WAS_AT_IT.search(said)) == is_another
