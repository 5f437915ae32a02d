"""Whether a registered version is still what it was registered as: asked on every run, so it has to be quick."""

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ernie_pipeline.registry.tracking import CHECKED, connected, public_uri

SQLITE = "sqlite:///"

IN_SQLITE = """
SELECT storage_location FROM model_versions JOIN model_version_tags USING (workspace, name, version)
WHERE name = ? AND version = ? AND key = ? AND current_stage <> 'Deleted_Internal'
"""


def what_is_lost(tracking_uri: str, name: str, version: str) -> str:
    """ "" for a version that is in the registry and was checked, else a clause that says what is missing.

    A local SQLite registry is read directly: importing MLflow takes longer than everything else that a run has to do
    when nothing is stale. Where that fails (other tables, another version of MLflow), its client is asked, as it is of
    a server. Raises `PipelineError` when a server does not answer.
    """
    found = _location(tracking_uri, name, version)
    if found is None:
        return f"version {version} of {name} is not in the registry at {public_uri(tracking_uri)}"
    files = urlsplit(found)
    if files.scheme in ("", "file") and tracking_uri.startswith(SQLITE) and not Path(unquote(files.path)).is_dir():
        return f"the files of version {version} of {name}, {unquote(files.path)}, are gone"
    return ""


def is_registered(tracking_uri: str, name: str, version: str) -> bool:
    """Whether a version is in the registry and was checked, be its files there or not. Raises as `what_is_lost`."""
    return _location(tracking_uri, name, version) is not None


def _location(tracking_uri: str, name: str, version: str) -> str | None:
    """Where the files of a checked version are said to be; None when the registry has no such version."""
    if tracking_uri.startswith(SQLITE):
        try:
            return _in_sqlite(_database(tracking_uri), name, version)
        except (sqlite3.Error, ValueError):
            pass  # MLflow's own client knows
    return _by_client(tracking_uri, name, version)


def _database(tracking_uri: str) -> Path:
    """The file that MLflow opens for an SQLite address: SQLAlchemy takes %20 for a space."""
    return Path(unquote(tracking_uri.removeprefix(SQLITE).partition("?")[0]))


def _in_sqlite(database: Path, name: str, version: str) -> str | None:
    """Where a checked version's files are, or None. Opened for reading only: nothing is made by looking."""
    if not database.is_file():
        return None
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        row = connection.execute(IN_SQLITE, (name, int(version), CHECKED)).fetchone()
    finally:
        connection.close()
    return None if row is None else str(row[0])


def _by_client(tracking_uri: str, name: str, version: str) -> str | None:
    with connected(tracking_uri) as client:
        from mlflow.exceptions import MlflowException  # after `connected`, which silences what mlflow does on import

        try:
            if CHECKED not in client.get_model_version(name, version).tags:
                return None
            location: Any = client.get_model_version_download_uri(name, version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return str(location)
