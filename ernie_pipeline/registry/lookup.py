"""Whether a registration still holds: its version, its aliases and its files. Asked on every run, so quickly.

A local SQLite registry is read directly, as importing MLflow takes longer than everything else that a run has to do
when nothing is stale. Only a "yes" is taken from there: what seems to be gone is asked of MLflow's own client, and so
is a registry with other tables (another version of MLflow) and a server.
"""

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.registry.moved_home import place_now
from ernie_pipeline.registry.tracking import CHECKED, GIVEN_UP, connected
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.sealed import Files, damaged_file
from ernie_pipeline.utils.address import SQLITE, local_folder, public_uri, sqlite_file

CHECKED_VERSION = """
SELECT workspace, storage_location FROM model_versions JOIN model_version_tags USING (workspace, name, version)
WHERE name = ? AND version = ? AND key = ? AND current_stage <> 'Deleted_Internal'
"""
LATER = re.compile(r"registered_model_meta|(?:.*/)?__pycache__/[^/]+\.pyc")
"""What MLflow writes into a version's folder when it is loaded from there, and Python beside the code that it runs."""
GIVEN_UP_TAG = "SELECT 1 FROM model_version_tags WHERE workspace = ? AND name = ? AND version = ? AND key = ?"
ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE workspace = ? AND name = ?"


@dataclass(frozen=True)
class Registered:
    """What registering recorded: the version, the aliases that it got, and the files that were uploaded.

    `files` is None for a registration that recorded none (of an earlier version of this package).
    """

    name: str
    version: str
    aliases: Sequence[str] = ()
    files: Files | None = None

    @classmethod
    def read(cls, registration: Mapping[str, Any]) -> "Registered":
        """From the values of registration.json. Raises `KeyError` or `TypeError` where it is none."""
        name, version = str(registration["name"]), str(registration["version"])
        return cls(name, version, registration.get("aliases", ()), registration.get("files"))


@dataclass(frozen=True)
class Found:
    """What the registry has: where the version's files are said to be, and the version that each alias names.

    `given_up`: whether the version was champion, and another was made it on purpose.
    """

    location: str
    aliases: Mapping[str, str]
    given_up: bool = False


def what_is_lost(tracking_uri: str, made: Registered, hash_of: Callable[[Path], str] = remembered_sha256) -> str:
    """ "" for a registration of which everything is there, else a clause that says what is missing.

    `hash_of` gives the SHA-256 of a file. Raises `PipelineError` when a server does not answer.
    """
    found = _find(tracking_uri, made)
    return _missing(found, made, tracking_uri) or (
        _damaged(found.location, made, tracking_uri, hash_of) if found else ""
    )


def is_registered(tracking_uri: str, name: str, version: str) -> bool:
    """Whether a version is in the registry and was checked, be its files there or not. Raises as `what_is_lost`."""
    return _find(tracking_uri, Registered(name, version)) is not None


def aliases_now(tracking_uri: str, name: str, version: str) -> list[str] | None:
    """The aliases that a checked version has now, None for one that is not there. Raises as `what_is_lost`."""
    found = _find(tracking_uri, Registered(name, version))
    return None if found is None else sorted(alias for alias, holder in found.aliases.items() if holder == version)


def champion_beside(tracking_uri: str, name: str, version: str) -> str | None:
    """The version that is champion of the model of which this is a checked version; None where there is none, or not
    this version. Raises as `what_is_lost`."""
    found = _find(tracking_uri, Registered(name, version))
    return found.aliases.get("champion") if found else None


def _find(tracking_uri: str, made: Registered) -> Found | None:
    """What the registry has of a checked version, None for nothing; that something is missing is the client's word."""
    if tracking_uri.startswith(SQLITE):
        database = sqlite_file(tracking_uri)
        if not database.is_file():
            return None  # MLflow would make one
        try:
            found = _in_sqlite(database, made.name, made.version)
        except (sqlite3.Error, ValueError):
            found = None
        if not _missing(found, made, tracking_uri):
            return found
    return _by_client(tracking_uri, made.name, made.version)


def _missing(found: Found | None, made: Registered, tracking_uri: str) -> str:
    """What the registry no longer says of the registration. An alias that a later version has got is none of it, nor
    is that of a champion that was followed on purpose."""
    if found is None:
        return f"version {made.version} of {made.name} is not in the registry at {public_uri(tracking_uri)}"
    for alias in made.aliases:
        holder = found.aliases.get(alias)
        if holder is None:
            return f"version {made.version} of {made.name} has lost its alias {alias}"
        if int(holder) < int(made.version) and not (alias == "champion" and found.given_up):
            return f"the alias {alias} of version {made.version} of {made.name} was given back to version {holder}"
    return ""


def _damaged(location: str, made: Registered, tracking_uri: str, hash_of: Callable[[Path], str]) -> str:
    """What is wrong with the version's files, where they are on this machine."""
    folder = local_folder(location)
    if folder is None:
        return ""
    if not folder.is_dir():  # a server's own folder may be on another machine
        gone = f"the files of version {made.version} of {made.name}, {folder}, are gone"
        return gone if tracking_uri.startswith(SQLITE) else ""
    if made.files is None:
        return ""
    damaged = damaged_file(folder, made.files, hash_of, tolerated=LATER)
    return f"version {made.version} of {made.name} is damaged in {folder}: {damaged}" if damaged else ""


def _in_sqlite(database: Path, name: str, version: str) -> Found | None:
    """What the database says. Opened for reading only: nothing is made by looking."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        row = connection.execute(CHECKED_VERSION, (name, int(version), CHECKED)).fetchone()
        if row is None:
            return None
        aliases = connection.execute(ALIASES, (row[0], name)).fetchall()
        given_up = connection.execute(GIVEN_UP_TAG, (row[0], name, int(version), GIVEN_UP)).fetchone()
        location = place_now(connection, database, str(row[1]))
    finally:
        connection.close()
    return Found(location, {alias: str(holder) for alias, holder in aliases}, given_up is not None)


def _by_client(tracking_uri: str, name: str, version: str) -> Found | None:
    with connected(tracking_uri) as client:
        from mlflow.exceptions import MlflowException  # after `connected`, which silences what mlflow does on import

        try:
            tags = client.get_model_version(name, version).tags
            if CHECKED not in tags:
                return None
            location: Any = client.get_model_version_download_uri(name, version)
            aliases = client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Found(str(location), {alias: str(holder) for alias, holder in aliases.items()}, GIVEN_UP in tags)
