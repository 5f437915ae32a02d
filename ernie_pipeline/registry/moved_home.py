"""A home that was copied or renamed: where MLflow's database says that files are is renewed, as it has whole paths.

Else a copy would read the files of the home that it was copied from, and write beside them.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from ernie_pipeline.utils.address import SQLITE, local_folder, sqlite_file
from ernie_pipeline.utils.errors import PipelineError

FILES = "mlartifacts"
"""The folder of a home in which MLflow's files are."""
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The columns that say where files are, or are to be."""
RENEWED = """
UPDATE {table} SET {column} = :now || substr({column}, length(:before) + 1)
WHERE {column} = :before OR substr({column}, 1, length(:before) + 1) = :before || '/'
"""


def renew_places(tracking_uri: str) -> str:
    """Let the database of a home lead to the files of that home, in one transaction; that it did so in a sentence, ""
    where there was nothing to do. Raises `PipelineError` where the database cannot be written."""
    database = sqlite_file(tracking_uri) if tracking_uri.startswith(SQLITE) else None
    if database is None or not database.is_file():
        return ""
    former, told = list[str](), ""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as connection, connection:
            former = _former(connection, database)
            told = " and ".join(str((local_folder(place) or Path(place)).parent) for place in former)
            for before in former:
                for table, column in PLACES:
                    values = {"before": before, "now": _own(database)}
                    connection.execute(RENEWED.format(table=table, column=column), values)
    except sqlite3.Error as error:
        if not former:
            return ""  # it is no database of MLflow's, or not to be read: MLflow says so itself
        raise PipelineError(
            f"{database} was copied or moved from {told}, and still leads to the files there; make it one that you may "
            f"write, so that it is renewed ({error})"
        ) from None
    if not former:
        return ""
    return f"{database.parent} was copied or moved from {told}: MLflow's database in it leads to its own files now"


def place_now(connection: sqlite3.Connection, database: Path, location: str) -> str:
    """Where the files of a location are once the database is renewed; for whoever only reads it."""
    for before in _former(connection, database):
        if location == before or location.startswith(f"{before}/"):
            return _own(database) + location.removeprefix(before)
    return location


def _former(connection: sqlite3.Connection, database: Path) -> list[str]:
    """Other homes' folders of files, in which this home's experiments have theirs.

    Not one of a home that shares this database, and so has none of its own; nor any where this is no home's.
    """
    if not (database.parent / "store").is_dir():
        return []
    found = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    return [location for (location,) in found if _is_former(local_folder(str(location)), database)]


def _is_former(folder: Path | None, database: Path) -> bool:
    if folder is None or folder.name != FILES or folder.resolve().as_uri() == _own(database):
        return False
    return _is_there(folder.parent / database.name) or not _is_there(folder)


def _is_there(place: Path) -> bool:
    """False too where it may not be looked at."""
    try:
        return place.exists()
    except OSError:
        return False


def _own(database: Path) -> str:
    return (database.parent / FILES).resolve().as_uri()
