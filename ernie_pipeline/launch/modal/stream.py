"""Lines of a file as objects of a bucket, whole lines only.

A bucket cannot append. An object, named by its first byte's place in the file, is written again with what has come
since, until it is large enough and another one begins: so there are few, and a reader goes by their sizes.
"""

from collections.abc import Mapping
from pathlib import Path

from ernie_pipeline.launch.modal.keys import MESSAGES
from ernie_pipeline.store.shared.bucket import Bucket, Listed

ENOUGH_BYTES = 2**17


class Sender:
    """Sends a file's lines below the folder of keys `below`."""

    def __init__(self, below: str, file: Path):
        self._below, self._file = below, file
        self._first, self._sent = 0, 0

    def send(self, bucket: Bucket) -> None:
        """What is new. Raises `BucketError`: the next time it is tried again."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._first)
                lines = stream.read()
        except FileNotFoundError:
            return
        whole = lines[: lines.rfind(b"\n") + 1]
        if self._first + len(whole) > self._sent:
            bucket.put(f"{self._below}/{MESSAGES}.{self._first:012d}", whole)
            self._sent = self._first + len(whole)
        if len(whole) >= ENOUGH_BYTES:
            self._first = self._sent


class Receiver:
    """Gives the lines of several senders of one job, one sender after the other."""

    def __init__(self, bucket: Bucket):
        self._bucket, self._have = bucket, dict[str, int]()

    def heard(self, below: str) -> bool:
        """Whether anything has come below `below`."""
        return any(sender.startswith(f"{below}/") for sender in self._have)

    def receive(self, below: str, listed: Mapping[str, Listed]) -> bytes:
        """What has come below `below` since the last call; `listed`: the objects there. Raises `BucketError`."""
        came = b""
        for name in sorted(name for name in listed if f"/{MESSAGES}." in name):
            start, _, first = name.rpartition(f"/{MESSAGES}.")
            sender = f"{below}/{start}"
            have = self._have.get(sender, 0)
            if not first.isdecimal() or not int(first) <= have < int(first) + listed[name].size:
                continue
            there = self._bucket.get(f"{below}/{name}")
            piece = there.body[have - int(first) :] if there else b""
            came += piece
            self._have[sender] = have + len(piece)
        return came
