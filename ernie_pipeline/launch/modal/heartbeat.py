"""Who is at work on an attempt: one object, written anew at each beat, on the condition that nobody else has since.

Modal starts a function again, with the same input, on a machine that it takes the place of another; the other one may
still be at work. So each start has a number, one more than the one before, and one that finds another's beat ends.
"""

import json
import uuid
from typing import Any

from ernie_pipeline.launch.modal.keys import HEARTBEAT
from ernie_pipeline.store.shared.bucket import Bucket, Version


class Heartbeat:
    """That of one start of the function. `spent_s`: the seconds of all starts of the attempt so far."""

    def __init__(self, bucket: Bucket, attempt: str):
        """`attempt`: its folder of keys."""
        self._bucket, self._key = bucket, f"{attempt}/{HEARTBEAT}"
        self._values: dict[str, Any] = {"start": 0, "nonce": uuid.uuid4().hex, "count": 0, "spent_s": 0.0}
        self._version: Version | None = None

    @property
    def start(self) -> int:
        """Its number, from 1."""
        return int(self._values["start"])

    @property
    def spent_s(self) -> float:
        """By the starts before this one."""
        return float(self._values["spent_s"])

    def take(self) -> bool:
        """Take the work over from whoever had it; False where another attempt has. Raises `BucketError`."""
        while self._version is None:
            there = self._bucket.get(self._key)
            before = _values(there.body) if there else {"start": 0, "spent_s": 0.0}
            if before is None:
                return False
            self._values |= {"start": before["start"] + 1, "spent_s": before["spent_s"]}
            body = json.dumps(self._values).encode()
            self._version = (
                self._bucket.replace(self._key, body, there.version) if there else self._bucket.create(self._key, body)
            )
        return True

    def beat(self, spent_s: float) -> bool:
        """Say that it lives; False where another one is at work. `spent_s`: of this start. Raises `BucketError`."""
        if self._version is None:
            return False
        values = {**self._values, "count": self._values["count"] + 1, "spent_s": self.spent_s + spent_s}
        self._values["count"] += 1
        body = json.dumps(values).encode()
        version = self._bucket.replace(self._key, body, self._version)
        if version is None:  # perhaps by a beat of this one, whose answer did not come in time
            there = self._bucket.get(self._key)
            own = there is not None and self._values["nonce"].encode() in there.body
            version = self._bucket.replace(self._key, body, there.version) if there and own else None
        self._version = version
        return version is not None


def _values(body: bytes) -> dict[str, Any] | None:
    """None for what is no heartbeat of this attempt."""
    try:
        values = json.loads(body)
        return {"start": int(values["start"]), "spent_s": float(values["spent_s"])}
    except (ValueError, TypeError, KeyError):
        return None
