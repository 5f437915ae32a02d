"""A folder that says itself what it holds: every file's size and hash, sealed, so that any change of it is noticed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie_pipeline.store.file_hash import sha256_of

Files = dict[str, dict[str, Any]]
"""Each file's `size` in bytes and `sha256`, by its path in the folder."""


def list_files(folder: Path) -> Files:
    """All files in the folder, as a manifest names them. Several are read at a time: hashing leaves the interpreter to
    others."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(8) as threads:
        hashes = list(threads.map(sha256_of, paths))
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": found}
        for path, found in zip(paths, hashes, strict=True)
    }


def damaged_file(folder: Path, files: Files, hash_of: Callable[[Path], str] = sha256_of) -> str:
    """The first file that is not as it was listed, with what is wrong with it unless it was altered; "" if none.

    `hash_of` gives the SHA-256 of a file, in hex digits.
    """
    for name, wanted in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        try:
            if file.stat().st_size != wanted["size"] or hash_of(file) != wanted["sha256"]:
                return name
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def write_sealed(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Write values of JSON's types with a hash of them, their `seal`, and wait until they are on the disk."""
    sealed = {**values, "seal": _seal(values)}
    with file.open("w", encoding="utf-8") as stream:
        stream.write(_text(sealed))
        stream.flush()
        os.fsync(stream.fileno())
    return sealed


def read_sealed(file: Path) -> tuple[dict[str, Any], str]:
    """What `write_sealed` wrote, or {} and what is wrong with the file."""
    try:
        content = file.read_bytes()
        values = json.loads(content)
        intact = values["seal"] == _seal(values) and content == _text(values).encode()
    except FileNotFoundError:
        return {}, f"{file.name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, f"{file.name} is not readable"
    return (values, "") if intact else ({}, file.name)


def discard(path: Path) -> None:
    """Remove a folder, or what stands in the place of one, as far as it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _seal(values: dict[str, Any]) -> str:
    covered = {name: value for name, value in values.items() if name != "seal"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:16]


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"
