"""What was ever built, in a bucket: an object for each build, which never changes, so it is read once a machine."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie_pipeline.store.aside import is_own_file
from ernie_pipeline.store.readable import read_file
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.publication import side_by_side
from ernie_pipeline.store.shared.records import packed, unpacked

FOLDER = "builds"


def add_build(bucket: Bucket, build: Mapping[str, Any]) -> None:
    """Add a build, a manifest without its files, to the history of its stage."""
    bucket.put(f"{FOLDER}/{build['stage']}/{_name(build)}", packed(build))


def known_builds(bucket: Bucket, stage: str, cache: Path) -> list[dict[str, Any]]:
    """The builds of a stage, without those whose objects are torn or altered. `cache`: a folder for what was read."""

    def read(name: str) -> dict[str, Any] | None:
        local = cache / stage / name
        with suppress(OSError):
            if values := unpacked(read_file(local)):
                return values
        there = bucket.get(f"{FOLDER}/{stage}/{name}")
        if there is None or (values := unpacked(there.body)) is None:
            return None
        with suppress(OSError):  # the disk is full, or a plan may not write: it is read again the next time
            local.parent.mkdir(parents=True, exist_ok=True)
            if is_own_file(local) or not os.path.lexists(local):
                local.write_bytes(there.body)  # half-written by a kill, it is read again
        return values

    return [values for values in side_by_side(read, sorted(bucket.list(f"{FOLDER}/{stage}"))) if values]


def _name(build: Mapping[str, Any]) -> str:
    return f"{build['built'].replace(':', '').replace('+', 'z')}-{build['fingerprint']}"
