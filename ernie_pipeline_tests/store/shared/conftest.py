"""One server for all tests of this folder; each test gets a bucket of its own, and no faults."""

import itertools
from collections.abc import Iterator

import pytest

from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline_tests.store.shared.server import Server, serving

numbers = itertools.count()


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, told to make no faults; this process may use it."""
    running.fail()
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def address(server: Server) -> str:
    """A home in a new bucket."""
    return f"{server.make_bucket(f'bucket-{next(numbers)}')}/team/home"


@pytest.fixture
def bucket(address: str) -> Bucket:
    """The same, opened."""
    return Bucket(address, patience_s=10)
