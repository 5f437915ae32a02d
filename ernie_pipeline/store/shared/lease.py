"""One builder per fingerprint at a time, across machines: an object that says who, kept alive by its owner.

Clocks of two machines need not agree. An owner writes its lease anew every third of `seconds`; who waits looks at it,
and takes it over once it has not changed for `seconds` by the waiter's own clock. As the waiter saw it after it was
written, and the owner counts from before, the owner always thinks it lost first.

A paused owner may wake up after that and go on. Nothing that it then writes counts: each lease has a number, the
fencing token, one more than the one before; what a build leaves for the next stands below its token; and an artifact is
published after `confirm`, on the condition that nobody else has published since (see publication.py).
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from ernie_pipeline.store.shared.bucket import Bucket, Version
from ernie_pipeline.store.shared.records import Values, packed, unpacked
from ernie_pipeline.utils.errors import PipelineError

SECONDS = 60.0
POLL_S = 2.0
NAMES = ("pid", "host", "since", "token", "seconds", "free")
"""What a lease says besides what only its owner reads."""


class Lease:
    """A lease on `key`, not held until `acquire` returns. `token` is the fencing token of the last time it was held."""

    def __init__(self, bucket: Bucket, key: str, seconds: float = SECONDS):
        self._bucket, self._key, self._seconds = bucket, key, seconds
        self.token = 0
        self._values: Values = {}
        self._version: Version | None = None
        self._mutex, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, on_wait: Callable[[str], None]) -> None:
        """Wait until it is ours. `on_wait` is called once with who holds it."""
        seen, since, told = b"", 0.0, False
        while True:
            there = self._bucket.get(self._key)
            if there is None:
                took = self._take(1, None)
            else:
                if there.body != seen:
                    seen, since = there.body, time.monotonic()
                values = unpacked(there.body, *NAMES)
                silent = time.monotonic() - since
                took = _is_free(values, silent) and self._take(_next_token(values), there.version)
                if not took and values and not values["free"] and not told:
                    on_wait(_who(values))
                    told = True
            if took:
                return
            time.sleep(min(POLL_S, self._seconds / 10))

    def confirm(self) -> bool:
        """Whether it is still ours, asked of the bucket: it is written anew if nobody has taken it over."""
        with self._mutex:
            if self._version is None:
                return False
            beat = {**self._values, "beat": self._values["beat"] + 1}
            self._version = self._bucket.replace(self._key, packed(beat), self._version)
            self._values = beat
            return self._version is not None

    def release(self) -> None:
        """Give it up, if it is still ours. One that cannot be given up now runs out."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        with self._mutex, suppress(PipelineError):
            if self._version is not None:
                self._bucket.replace(self._key, packed({**self._values, "free": True}), self._version)
            self._version = None

    def _take(self, token: int, version: Version | None) -> bool:
        values: Values = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": f"{datetime.now():%H:%M:%S}",
            "nonce": uuid.uuid4().hex,
            "token": token,
            "seconds": self._seconds,
            "beat": 0,
            "free": False,
        }
        body = packed(values)
        took = self._bucket.replace(self._key, body, version) if version else self._bucket.create(self._key, body)
        if took is None:
            return False
        self._values, self._version, self.token = values, took, token
        self._stop.clear()
        self._thread = threading.Thread(target=self._renew, name=f"lease {self._key}", daemon=True)
        self._thread.start()
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            with suppress(PipelineError):  # a bucket that does not answer: it may again before the lease runs out
                if not self.confirm():
                    return


def _is_free(values: Values | None, silent_s: float) -> bool:
    return values is None or values["free"] or silent_s >= values["seconds"]


def _next_token(values: Values | None) -> int:
    """Of an altered lease, whose token is lost, it is larger than any that was counted."""
    return int(values["token"]) + 1 if values else time.time_ns()


def _who(values: Values) -> str:
    return f"process {values['pid']} on {values['host']} since {values['since']}"
