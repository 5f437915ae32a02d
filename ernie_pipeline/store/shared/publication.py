"""An artifact in the bucket: its files below a name of their own, and last the record that says which they are.

There is no rename in a bucket. Until the record stands, nothing counts of what was written; it is written on a
condition, "nobody has before" or "it is still the one that I found damaged", so the first publisher wins and a second
one takes what the first one made. A record is never written by halves: a bucket shows an object whole or not at all.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ernie_pipeline.store.artifacts import MANIFEST, NOT_BUILT
from ernie_pipeline.store.manifest import is_manifest
from ernie_pipeline.store.sealed import Files, sealed_files, write_sealed_folder
from ernie_pipeline.store.shared.bucket import Bucket, BucketError, Version
from ernie_pipeline.store.shared.records import is_inside, packed, unpacked

FOLDER = "store"
RECORD = "manifest.json"
AT_ONCE = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Publication:
    """A record that is whole: the artifact's manifest, and where its files are. `version` is the record's own."""

    manifest: dict[str, Any]
    build: str
    etags: dict[str, str]
    version: Version


def place_of(stage: str, fingerprint: str) -> str:
    """The folder of keys of an artifact."""
    return f"{FOLDER}/{stage}/{fingerprint}"


def read_record(bucket: Bucket, stage: str, fingerprint: str) -> tuple[Publication | None, str, Version | None]:
    """The record, or None and the reason; and, where there is one of any kind, its version."""
    there = bucket.get(f"{place_of(stage, fingerprint)}/{RECORD}")
    if there is None:
        return None, NOT_BUILT, None
    values = unpacked(there.body, "manifest", "build", "etags")
    manifest = values["manifest"] if values else {}
    files = sealed_files(manifest) if is_manifest(manifest) else None
    if not values or files is None or not all(map(is_inside, files)) or manifest["fingerprint"] != fingerprint:
        return None, f"artifact altered: {RECORD}", there.version
    return Publication(values["manifest"], values["build"], values["etags"], there.version), "", there.version


def damaged_object(bucket: Bucket, stage: str, fingerprint: str, published: Publication) -> str:
    """The first file that is not in the bucket as it was published, as `sealed.damaged_file` names it; "" if none.

    One listing tells; only an object whose ETag is another one, as after a copy of the whole bucket, is read.
    """
    below = f"{place_of(stage, fingerprint)}/{published.build}"
    listed = bucket.list(below)
    files: Files = published.manifest["files"]
    for name, wanted in files.items():
        there = listed.get(name)
        if there is None:
            return f"{name} is missing"
        if there.size != wanted["size"]:
            return name
        if there.etag != published.etags.get(name) and bucket.hash_of(f"{below}/{name}") != wanted["sha256"]:
            return name
    return ""


class DamagedError(Exception):
    """A file that was downloaded is not the one that was published; the text is what `damaged_file` says."""


def download(bucket: Bucket, stage: str, fingerprint: str, published: Publication, final: Path) -> None:
    """Make the local folder `final` of a published artifact, verified, in one step. For its sole writer only.

    Raises `DamagedError`, and `PipelineError` when the disk is full or the bucket away.
    """
    below = f"{place_of(stage, fingerprint)}/{published.build}"
    wanted: Files = published.manifest["files"]

    def fetch(folder: Path, name: str) -> None:
        found = bucket.download(f"{below}/{name}", folder / name)
        if found != wanted[name]["sha256"]:
            raise DamagedError(name if found else f"{name} is missing")

    def fill(folder: Path) -> None:
        side_by_side(lambda name: fetch(folder, name), wanted)

    def values(files: Files) -> dict[str, Any]:
        return {key: value for key, value in published.manifest.items() if key not in ("files", "seal")}

    write_sealed_folder(final, MANIFEST, fill, values, what=stage)


def publish(
    bucket: Bucket, key: tuple[str, str], folder: Path, token: int, may: Callable[[], bool], over: Version | None
) -> bool:
    """Publish the local artifact `folder` of `key`, stage and fingerprint; whether it was, and not another's first.

    `over`: the version of a record that it may replace; None where none was. `may` is asked right before the record is
    written, when the files are there. Raises `BucketError`.
    """
    place, build = place_of(*key), uuid.uuid4().hex[:12]
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    etags = upload(bucket, folder, manifest["files"], f"{place}/{build}")
    record = packed({"manifest": manifest, "build": build, "etags": etags, "token": token})
    name = f"{place}/{RECORD}"
    written = may() and (bucket.replace(name, record, over) if over else bucket.create(name, record))
    remove_builds(bucket, place, lambda other: (other != build) if written else (other == build))
    return bool(written)


def upload(bucket: Bucket, folder: Path, names: Iterable[str], below: str) -> dict[str, str]:
    """Write files of a folder into the bucket; their ETags. Raises `BucketError` if one came out with another size."""
    names = list(names)
    etags = side_by_side(lambda name: bucket.put(f"{below}/{name}", folder / name), names)
    listed = bucket.list(below)
    for name in names:
        if name not in listed or listed[name].size != (folder / name).stat().st_size:
            raise BucketError(f"{bucket.address}: {below}/{name} is not there as it was written; run again")
    return dict(zip(names, etags, strict=True))


def remove_builds(bucket: Bucket, place: str, going: Callable[[str], bool]) -> None:
    """Remove the files of builds of one artifact that are not, or no longer, the published one."""
    keys = [name for name in bucket.list(place) if "/" in name and going(name.partition("/")[0])]
    bucket.delete([f"{place}/{name}" for name in keys])


def side_by_side(work: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
    """`work` on each, several at a time; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(work, items))
