"""Which checkpoint a base model's name means, and its version: a resolved hub commit or a hash of its files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from ernie_pipeline.demo import BASE
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.hub import hub_commit

NOT_WEIGHTS = {"README.md", "pretraining.json", "LICENSE"}
"""Files of a checkpoint folder that no loader reads; nor does one read what is hidden."""


def resolve_checkpoint(name: str, revision: str, hash_of: Callable[[Path], str] = sha256_of) -> str:
    """The version of `base_model.name`: "commit:<40 hex>" of a hub repository, "sha256:<hex>" of a folder's files.

    "demo" is the checkpoint in this package, an existing folder is itself, anything else a hub id whose `revision` is
    resolved to a commit. `hash_of` gives the SHA-256 of a file, in hex digits. Raises `PipelineError` for a path that
    is not there and for a hub that does not answer.
    """
    if name == "demo":
        return checkpoint_version(BASE, hash_of)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return checkpoint_version(folder, hash_of)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise PipelineError(
            f"base model {name}: there is no such folder; set base_model.name to a checkpoint folder or a hub id"
        )
    commit = hub_commit("model", name, revision, "base_model.name", "base_model.revision")
    return f"commit:{commit}"


def pinned_checkpoint(name: str, version: str) -> tuple[str, str | None]:
    """(where to load it from, hub commit or None) of the model `name` at the version that was resolved before."""
    if version.startswith("commit:"):
        return name, version.removeprefix("commit:")
    return str(BASE if name == "demo" else Path(name).expanduser().resolve()), None


def checkpoint_version(folder: Path, hash_of: Callable[[Path], str] = sha256_of) -> str:
    """A hash of the names and contents of every file that decides the model or its tokenizer."""
    if not (folder / "config.json").is_file():
        raise PipelineError(
            f"base model {folder}: no config.json there; set base_model.name to a transformers checkpoint"
        )
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in NOT_WEIGHTS):
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue  # .git, and .cache of the hub's download tool
        digest.update(f"{file.relative_to(folder).as_posix()}\0{hash_of(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
