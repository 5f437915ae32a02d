"""What the steps of one run agree on, where they run on several machines."""

import math
from collections.abc import Callable
from pathlib import Path

from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline.store.shared.records import packed, unpacked

FOLDER = "runs"
"""A rule of the bucket's own may remove what is older than a month there."""


class SharedPins(Pins):
    """Pins that the first step to ask writes into the bucket; the local file is what this machine knows of it."""

    def __init__(self, root: Path, run: str, bucket: Bucket):
        super().__init__(root, run)
        self._bucket, self._run = bucket, run

    def pin(self, name: str, make: Callable[[], str], valid_s: float = math.inf) -> str:
        """The run's value of `name`, made now if no step on any machine has asked for it before."""
        return super().pin(name, lambda: self._agreed(f"{FOLDER}/{self._run}/{name}", make), valid_s)

    def _agreed(self, key: str, make: Callable[[], str]) -> str:
        there = self._bucket.get(key)
        if there is None:
            made = make()
            if self._bucket.create(key, packed({"value": made})) is not None:
                return made
            there = self._bucket.get(key)
        values = unpacked(there.body, "value") if there else None
        if values is None:
            raise BucketError(f"{self._bucket.address}/{key} is altered; remove it, or start another run")
        return str(values["value"])
