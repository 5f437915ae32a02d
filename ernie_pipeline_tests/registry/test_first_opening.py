"""Homes that open one new MLflow database at the same time: its tables are made once, and all of them go on."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline.registry.first_opening import ANOTHER_WAS_AT_IT
from ernie_pipeline.registry.tracking import connected

OPENS = """
import sys
from ernie_pipeline.registry.tracking import connected
print("ready", flush=True)
sys.stdin.readline()
with connected(sys.argv[1]) as client:
    client.create_registered_model(sys.argv[2])
"""
NAMES = ("a", "b", "c")


def open_at_once(address: str) -> None:
    """Fail unless each of several processes can use the new database; models of all of them are in it then."""
    command = [sys.executable, "-W", "ignore", "-c", OPENS, address]
    pipe, root = subprocess.PIPE, Path(__file__).parents[2]
    started = [
        subprocess.Popen([*command, name], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=root) for name in NAMES
    ]
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
    open_at_once(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a new database in a PostgreSQL of this test's own, on loopback."""
    pytest.importorskip("psycopg2")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("needs Debian's package postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # it does not run as root
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if user:
        shutil.chown(folder, user)
    options = ["--auth=trust", "--username=me", "--no-sync", f"--pgdata={folder}/data"]
    subprocess.run([binaries[-1] / "initdb", *options], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    settings = [f"-cport={port}", "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={folder}", "-cfsync=off"]
    command = [binaries[-1] / "postgres", f"-D{folder}/data", *settings]
    with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.DEVNULL) as server:
        ready = [binaries[-1] / "pg_isready", "-q", "-h127.0.0.1", f"-p{port}"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"postgresql+psycopg2://me@127.0.0.1:{port}/postgres"
        server.send_signal(3)  # SIGQUIT: at once
    shutil.rmtree(folder)


def test_a_postgresql(postgresql: str) -> None:
    open_at_once(postgresql)


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
