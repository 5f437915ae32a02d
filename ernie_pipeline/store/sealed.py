"""A folder that says itself what it holds: every file's size and hash, sealed, so that any change of it is noticed."""

import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from ernie_pipeline.store.aside import is_own_file, make_folder
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.readable import NOT_READABLE, parse_json, read_file
from ernie_pipeline.store.unlisted import shown, unlisted
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence, is_disk_full


class FileEntry(TypedDict):
    """What a manifest says of a file: its size in bytes, its SHA-256 in hex digits."""

    size: int
    sha256: str


Files = dict[str, FileEntry]
"""By the file's path in the folder."""
Values = dict[str, Any]
"""Values of JSON's types."""

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}")
"""The name of a folder that is being written or removed, for the one named in the group."""
NEARLY_FULL = 2**16


def write_sealed_folder(
    final: Path,
    manifest: str,
    fill: Callable[[Path], None],
    values: Callable[[Files], Values],
    *,
    what: str,
    durable: bool = False,
) -> Values:
    """Let `fill` write the files of the folder `final`, and seal them with the file `manifest`, which is returned.

    They are written into a temporary folder beside it, which is renamed in one step: whatever ends this early, an
    error, a full disk, a kill, leaves nothing half-written in that place. What stands there stays until then, and is
    replaced; a file in the place of the folder of both is set aside. `values` gives, from the list of the files, what
    the manifest says besides that list. `durable`: it is on the disk when this returns.

    Only for the sole writer of `final`: what killed ones left is removed. Raises `PipelineError` when the disk is full,
    which begins with `what`.
    """
    make_folder(final.parent, below=final.parent.parent)
    remove_temporary(final)
    temporary, begun = temporary_place(final), False
    try:
        temporary.mkdir()
        begun = True
        fill(temporary)
        files = list_files(temporary)
        if more := unlisted(temporary, files):
            raise RuntimeError(f"{what} writes what no manifest can list: {more}")
        sealed = write_sealed(temporary / manifest, {**values(files), "files": files})
        same_rights(temporary / manifest, [temporary / name for name in files])
        if durable:
            _synchronise(temporary)
        _move_away(final)
        temporary.rename(final)
        begun = False
        if durable:
            _synchronise_entries(final.parent)
    except Exception as error:
        if is_disk_full(error) or (_is_nearly_full(final.parent) and not isinstance(error, PipelineError)):
            raise PipelineError(f"{what}: {disk_full_sentence(str(final.parent))}") from error
        if begun and not temporary.is_dir() and not isinstance(error, PipelineError):
            raise PipelineError(
                f"{what}: {temporary} was removed by others while it was being written; run again"
            ) from error
        raise
    finally:
        remove_temporary(final)
    return sealed


def remove_folder(final: Path) -> None:
    """Remove a folder: out of its place in one step, then from the disk as far as it can be. For its sole writer only.

    Raises `OSError` when it cannot be taken out of its place.
    """
    _move_away(final)
    remove_temporary(final)


def remove_temporary(final: Path) -> None:
    """Remove what killed writers of a folder left beside it. For its sole writer only."""
    for left in temporary_folders(final.parent).get(final.name, ()):
        discard(left)


def temporary_place(final: Path) -> Path:
    """Where nothing stands: beside the folder, under a name that says what it is for."""
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")


def temporary_folders(parent: Path) -> dict[str, list[Path]]:
    """What killed writers left, and living ones are writing there, by the name of the folder that it is for."""
    found: dict[str, list[Path]] = {}
    for path in sorted(parent.glob(".*")):
        if match := TEMPORARY.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    return found


def list_files(folder: Path) -> Files:
    """All files in the folder, as a manifest names them. Several are read at a time: hashing leaves the interpreter to
    others."""
    paths = [path for path in sorted(folder.rglob("*")) if is_own_file(path)]
    with ThreadPoolExecutor(8) as threads:
        hashes = list(threads.map(sha256_of, paths))
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": found}
        for path, found in zip(paths, hashes, strict=True)
    }


def damaged_file(
    folder: Path,
    files: Files,
    hash_of: Callable[[Path], str] = sha256_of,
    *,
    besides: Collection[str] = (),
    tolerated: "re.Pattern[str] | None" = None,
) -> str:
    """The first file that is not as it was listed, with what is wrong with it unless it was altered; "" if none.

    So is one that is not listed: the folder holds what is in `files`, `besides` them the file with that list, paths
    that match `tolerated` and nothing else (see `unlisted`). `hash_of` gives the SHA-256 of a file, in hex digits.
    """
    if more := unlisted(folder, {*files, *besides}, tolerated):
        return more
    return next(filter(None, (damaged_entry(folder, name, entry, hash_of) for name, entry in files.items())), "")


def damaged_entry(folder: Path, name: str, wanted: FileEntry, hash_of: Callable[[Path], str] = sha256_of) -> str:
    """The file's name if it is not as it was listed, with what is wrong with it unless it was altered; "" if it is."""
    file = folder / name
    if not is_own_file(file):
        return f"{shown(name)} is missing"
    try:
        return shown(name) if file.stat().st_size != wanted["size"] or hash_of(file) != wanted["sha256"] else ""
    except OSError as error:
        return f"{shown(name)} cannot be read ({error.strerror})"


def sealed_files(values: Values) -> Files | None:
    """The list of files in a manifest's values; None where it is none, whoever has sealed it."""
    files = values.get("files")
    entries = files.values() if isinstance(files, dict) else [None]
    fits = all(
        isinstance(entry, dict) and type(entry.get("size")) is int and isinstance(entry.get("sha256"), str)
        for entry in entries
    )
    return files if fits else None


def write_sealed(file: Path, values: Values) -> Values:
    """Write values of JSON's types with a hash of them, their `seal`, and wait until they are on the disk."""
    sealed = {**values, "seal": _seal(values)}
    with file.open("w", encoding="utf-8") as stream:
        stream.write(_text(sealed))
        stream.flush()
        os.fsync(stream.fileno())
    return sealed


def read_sealed(file: Path) -> tuple[Values, str]:
    """What `write_sealed` wrote, or {} and what is wrong with the file."""
    try:
        content = read_file(file)
        values = parse_json(content)
        intact = values["seal"] == _seal(values) and content == _text(values).encode()
    except FileNotFoundError:
        return {}, f"{file.name} is missing"
    except NOT_READABLE:
        return {}, f"{file.name} is not readable"
    return (values, "") if intact else ({}, file.name)


def discard(path: Path) -> None:
    """Remove a folder, or what stands in the place of one, as far as it can be."""
    if path.is_dir() and not path.is_symlink():
        with suppress(RecursionError):  # a thousand folders in one another, which nobody here has made
            shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def same_rights(model: Path, files: list[Path]) -> None:
    """Whoever may read the manifest, as the umask says, may read all: safetensors writes for the user alone."""
    rights = stat.S_IMODE(model.stat().st_mode)
    for file in files:
        if stat.S_IMODE(file.stat().st_mode) != rights:
            with suppress(OSError):  # a file system without rights
                file.chmod(rights)


def _move_away(final: Path) -> None:
    if os.path.lexists(final):
        final.rename(temporary_place(final))


def _synchronise(folder: Path) -> None:
    """Wait until a folder and all that is below it are on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _synchronise_entries(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    _synchronise_entries(folder)


def _synchronise_entries(folder: Path) -> None:
    entries = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def _is_nearly_full(folder: Path) -> bool:
    """Libraries that write for themselves, such as torch, do not say why they could not."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < NEARLY_FULL


def _seal(values: Values) -> str:
    covered = {name: value for name, value in values.items() if name != "seal"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:16]


def _text(values: Values) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"
