"""What a quantized base model is made of, how its folder is named after that, and whether it is intact.

`models/grouped/quantized_base.py` makes and reads them; the store's housekeeping looks after them, without torch.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.sealed import Values, damaged_entry, read_sealed, sealed_files
from ernie_pipeline.store.unlisted import unlisted
from ernie_pipeline.store.user_cache import users_cache

FOLDER = ".bases"
"""Where they are in the store: `<key>/` each, `<key>.lock` beside it, and `.<key>.<8 hex digits>/` while it is made."""
PLACE = "ERNIE_PIPELINE_BASES"
"""The environment variable that names their folder to a process which is told nothing else, such as a server."""
MANIFEST = "base.json"
LIBRARIES = ("bitsandbytes",)
"""Those whose versions decide what is written."""
FORMAT = 2
DICTIONARIES = ("quantization", "libraries")
"""Of what it is made of, the parts that are dictionaries."""

MadeOf = dict[str, Any]
"""What decides every byte of a quantized base: the base model's `version`, `quantization`, `format` and `libraries`."""


def made_of(base_version: str, quantization: Mapping[str, Any]) -> MadeOf:
    """That of the base model of this version in this quantization (the recipe's section), made here and now."""
    return {
        "version": base_version,
        "quantization": dict(quantization),
        "format": FORMAT,
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def key_of(made: MadeOf) -> str:
    """The name of the folder: 32 hex digits."""
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:32]


def place_of(made: MadeOf, bases: Path | None) -> Path:
    """Its folder in `bases`, by default in what the environment names, or in one in the user's cache folder."""
    folder = bases or os.environ.get(PLACE)
    return (Path(folder) if folder else users_cache() / "bases") / key_of(made)


def damage(place: Path, hash_of: Callable[[Path], str] = sha256_of) -> str:
    """What is wrong with a quantized base, "" if nothing. `hash_of` gives each file's SHA-256, several at a time."""
    manifest, problem = read_sealed(place / MANIFEST)
    files, made = sealed_files(manifest), _made_of(manifest)
    if problem or files is None or made is None:
        return problem or f"{MANIFEST} is not readable"
    if key_of(made) != place.name:
        return f"{MANIFEST} is that of another one"
    if more := unlisted(place, {*files, MANIFEST}):
        return more
    with ThreadPoolExecutor() as threads:  # hashing leaves the interpreter to the others
        found = threads.map(lambda entry: damaged_entry(place, entry[0], entry[1], hash_of), files.items())
        return next(filter(None, found), "")


def read_made_of(place: Path) -> MadeOf:
    """What the quantized base in that place says that it is made of; {} where that is not readable."""
    return _made_of(read_sealed(place / MANIFEST)[0]) or {}


def _made_of(manifest: Values) -> MadeOf | None:
    made = manifest.get("made_of")
    if not isinstance(made, dict):
        return None
    fits = [isinstance(made.get("version"), str), *(isinstance(made.get(name), dict) for name in DICTIONARIES)]
    return made if all(fits) else None


def _version(library: str) -> str:
    """Installed here, or "" where it is not."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
