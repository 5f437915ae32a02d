"""Where the homes of the scenarios are: folders, or, for the tests that say so, a bucket with such a folder as cache.

With ERNIE_PIPELINE_TEST_HOMES=bucket all of `scenarios/staleness` works over a bucket. A test goes on treating the
folder as the store: what it altered, deleted or put back there is done to the objects too, before each command.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ernie_pipeline.store.artifacts import MANIFEST
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.sealed import read_sealed
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.records import unpacked
from ernie_pipeline_tests.store.shared.server import Server, serving

ALL_IN_A_BUCKET = os.environ.get("ERNIE_PIPELINE_TEST_HOMES") == "bucket"
LEASE_S = "10"


@dataclass
class InBucket:
    """Homes in a bucket: that of the folder `/tmp/x/home` is `s3://homes/tmp/x/home`, and the folder its cache."""

    server: Server
    records: dict[str, bytes] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)

    def address(self, home: Path) -> str:
        return f"s3://homes{home}"

    def variables(self, home: Path) -> dict[str, str]:
        """What a process needs to work with this home. MLflow's database is a file: these machines share a disk."""
        return {
            **self.server.environment,
            "ERNIE_PIPELINE_HOME": self.address(home),
            "ERNIE_PIPELINE_CACHE": str(home),
            "ERNIE_PIPELINE_LEASE_SECONDS": LEASE_S,
            "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        }

    def bucket(self, home: Path) -> Bucket:
        return Bucket(self.address(home))

    def copy(self, home: Path, to: Path) -> None:
        """All objects of one home for another."""
        origin, copied = self.bucket(home), self.bucket(to)
        for key in origin.list(""):
            stored = origin.get(key)
            assert stored
            copied.put(key, stored.body)

    def mirror(self, home: Path) -> None:
        """Do to the objects what was done to the folder since they were published."""
        bucket = self.bucket(home)
        for key in bucket.list("store"):
            if key.endswith(f"/{MANIFEST}") and key.count("/") == 2:
                stored = bucket.get(f"store/{key}")
                if stored and unpacked(stored.body):
                    self.records[f"{home}/{key}"] = stored.body
        for place, record in self.records.items():
            if place.startswith(f"{home}/"):
                self._mirror_artifact(bucket, home, place.removeprefix(f"{home}/"), record)

    def _mirror_artifact(self, bucket: Bucket, home: Path, key: str, record: bytes) -> None:
        folder, values = home / "store" / Path(key).parent, unpacked(record)
        assert values
        there = bucket.get(f"store/{key}")
        if there and there.body != record and unpacked(there.body):
            return  # published anew since
        if not folder.is_dir():
            bucket.delete([f"store/{key}"])
            return
        body = record if read_sealed(folder / MANIFEST)[0] == values["manifest"] else b"altered"
        if not there or there.body != body:
            bucket.put(f"store/{key}", body)
        below = f"store/{Path(key).parent.as_posix()}/{values['build']}"
        listed = bucket.list(below)
        for name, entry in values["manifest"]["files"].items():
            if not (folder / name).is_file():
                bucket.delete([f"{below}/{name}"])
            elif sha256_of(folder / name) != entry["sha256"] or name not in listed or f"{below}/{name}" in self.altered:
                bucket.put(f"{below}/{name}", folder / name)
                self.altered.add(f"{below}/{name}")


class Homes:
    """Which of the two this process's tests work with now."""

    in_bucket: InBucket | None = None


def variables(home: Path) -> dict[str, str]:
    """The environment of a process that works with the home."""
    if Homes.in_bucket is None:
        return {"ERNIE_PIPELINE_HOME": str(home)}
    Homes.in_bucket.mirror(home)
    return Homes.in_bucket.variables(home)


def copy_objects(home: Path, to: Path) -> None:
    """Where homes are in a bucket: what a copy of the folder does not copy."""
    if Homes.in_bucket:
        Homes.in_bucket.copy(home, to)


@contextmanager
def in_a_bucket(host: str = "127.0.0.1") -> Iterator[InBucket]:
    """From now on, homes are in a bucket."""
    with serving(host) as server:
        server.make_bucket("homes")
        Homes.in_bucket = InBucket(server)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in server.environment.items():
                    patch.setenv(name, value)
                yield Homes.in_bucket
        finally:
            Homes.in_bucket = None
