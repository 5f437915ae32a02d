"""MLflow's database is made by one process; whoever comes at the same time waits for it.

MLflow guards this by a lock in the temporary folder, which containers, users with a TMPDIR and machines do not share:
without more, the second one fails in the middle of MLflow's migrations.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

LOCK = 0x65726E6965  # "ernie"
"""PostgreSQL's advisory lock: any number that others do not use in the same database."""
TRIES = 5


@contextmanager
def one_at_a_time(address: str, sqlite_file: Path | None) -> Iterator[None]:
    """Hold the lock of a database that MLflow may have to make: that of `sqlite_file`, else of PostgreSQL at `address`.

    Other addresses (a server, MySQL) have none here. Raises SQLAlchemy's errors where the database does not answer.
    """
    if sqlite_file:
        lock = FileLock(f"{sqlite_file}.lock")
        with lock if os.access(sqlite_file.parent, os.W_OK) else nullcontext():  # what is there may still be read
            yield
    elif address.partition(":")[0].partition("+")[0] == "postgresql":
        from sqlalchemy import create_engine, text

        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        try:
            with _connection(engine) as connection:  # the lock goes with the connection, whatever ends it
                connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
                yield
        finally:
            engine.dispose()
    else:
        yield


def _connection(engine: "Engine") -> "Connection":
    """A connection, asked for again for some seconds: PostgreSQL may be restarting just now."""
    from sqlalchemy.exc import OperationalError

    for _ in range(TRIES - 1):
        try:
            return engine.connect()
        except OperationalError:
            time.sleep(1)
    return engine.connect()
