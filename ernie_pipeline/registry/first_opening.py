"""MLflow makes a database's tables, or brings them up to date, as it opens it: two at once break each other's work.

Its own lock (3.17) covers some of the tables, by a file in /tmp, so on one machine. Here one process at a time opens a
database: by a lock of the folder of an SQLite file, or one that PostgreSQL keeps. What that does not cover, another
kind of database or an MLflow server that starts just then, is seen by its error, and tried again.
"""

import glob
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_pipeline.recipe.settings import sqlite_uri
from ernie_pipeline.registry.moved_home import renew_places
from ernie_pipeline.store.aside import alone_in
from ernie_pipeline.utils.address import SQLITE, sqlite_file

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient

log = logging.getLogger(__name__)
"""Where it is told that a home was moved; without a handler, Python prints it on stderr."""

LOCK = 0x65726E6965
"""The number of PostgreSQL's lock, the same for all of this package ("ernie")."""
TRIES = 5
PAUSE_S = 0.5
"""Before the second try; each pause is twice the one before."""
ANOTHER_WAS_AT_IT = re.compile(
    r"already exists|duplicate (column|key|entry|table)|expected to match 1 row"
    r"|UNIQUE constraint failed: (alembic|exper)"
    r"|out-of-date database schema|database is locked|no such (table|column)|deadlock detected",
    re.IGNORECASE,
)
"""What databases, alembic and MLflow say of tables that somebody else is making."""


def open_client(address: str) -> "MlflowClient":
    """MLflow's client of the address that is set, its database's tables made. Raises what MLflow and SQLAlchemy do."""
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(TRIES):
        try:
            with _alone(address):
                return mlflow.MlflowClient()
        except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
            if attempt == TRIES - 1 or not ANOTHER_WAS_AT_IT.search(str(error)):
                raise
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _alone(address: str) -> "AbstractContextManager[None]":
    if address.startswith(SQLITE):
        return _alone_with_file(sqlite_file(address))
    return _alone_in_postgresql(address) if address.startswith("postgresql") else nullcontext()


@contextmanager
def _alone_with_file(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(file.parent):
        if not file.exists():
            _make(file)
        elif words := renew_places(sqlite_uri(file)):
            log.warning("%s", words)
        yield


def _make(file: Path) -> None:
    """Let MLflow make its tables beside it, and put them there in one step: of a process that is ended meanwhile, by
    Ctrl-C for one, they would be left half made, which no MLflow goes on from."""
    import mlflow

    for left in file.parent.glob(f".{glob.escape(file.name)}.new-*"):
        left.unlink()
    # another name each time: MLflow keeps the connections of a process by it
    aside = file.with_name(f".{file.name}.new-{uuid.uuid4().hex[:8]}")
    # SQLite would make it for its owner alone to write, whatever the umask
    os.close(os.open(aside, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o666))
    mlflow.MlflowClient(sqlite_uri(aside), sqlite_uri(aside))
    aside.rename(file)


@contextmanager
def _alone_in_postgresql(address: str) -> Iterator[None]:
    """Hold the database's lock, which goes with the connection; where there is none to be had, MLflow says why."""
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    connection = None
    with suppress(SQLAlchemyError):
        connection = create_engine(address, poolclass=NullPool).connect()
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    try:
        yield
    finally:
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()
