"""What was ever built: a line for each build, kept beside the artifacts, so that one that is gone is still known."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie_pipeline.store.artifacts import COST, ArtifactStore
from ernie_pipeline.store.aside import make_way
from ernie_pipeline.store.manifest import KEPT, is_build
from ernie_pipeline.store.readable import NOT_READABLE, parse_json, read_file

Build = dict[str, Any]
"""A manifest without its files: what was built when, from what, in how many seconds, and its `COST` if it says so."""


def remember(store: ArtifactStore, manifest: Mapping[str, Any]) -> None:
    """Add a build to the stage's history; what stands in the history's place and is none is set aside."""
    file = make_way(_file(store, manifest["stage"]), store.root)
    line = json.dumps(_kept(manifest)).encode() + b"\n"
    log = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)  # less the umask
    try:
        size = os.fstat(log).st_size
        cut_off = size and os.pread(log, 1, size - 1) != b"\n"  # by a crash: this line must not hang on to it
        os.write(log, b"\n" + line if cut_off else line)  # one write: whole beside other writers'
    finally:
        os.close(log)


def recorded(store: ArtifactStore, stage: str) -> list[Build]:
    """The builds in the stage's history, in its order; of a history that cannot be read, none."""
    try:
        lines = read_file(_file(store, stage)).splitlines()
    except OSError:
        return []
    return [build for line in lines if (build := _parsed(line))]


def builds(store: ArtifactStore, stage: str) -> list[Build]:
    """Every known build of the stage, oldest first: of the history, and of artifacts that stand in the store."""
    standing = [store.manifest(stage, fingerprint)[0] for fingerprint in store.fingerprints(stage)]
    found = [*recorded(store, stage), *(_kept(manifest) for manifest in standing if manifest)]
    return sorted({(build["fingerprint"], build["built"]): build for build in found}.values(), key=lambda b: b["built"])


def _file(store: ArtifactStore, stage: str) -> Path:
    return store.root / ".builds" / f"{stage}.jsonl"


def _kept(manifest: Mapping[str, Any]) -> Build:
    return {key: manifest[key] for key in (*KEPT, *([COST] if COST in manifest else []))}


def _parsed(line: bytes) -> Build | None:
    """None for a line that a crash cut off or that somebody altered: history is advice, never a reason to fail."""
    try:
        build = parse_json(line)
    except NOT_READABLE:
        return None
    return build if is_build(build) else None
