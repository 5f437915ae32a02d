"""The step's side: the job's folder, kept like what the container has written into the bucket, and the other way."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ernie_pipeline.launch.detached.engine import Unreachable
from ernie_pipeline.launch.detached.place import SEALED as LOCAL_SEALED
from ernie_pipeline.launch.detached.place import Attempt, Place
from ernie_pipeline.launch.modal.keys import ERROR, HEARTBEAT, OUT, RECORD, SEALED, STOP, job_place
from ernie_pipeline.launch.modal.stream import Receiver
from ernie_pipeline.store.aside import make_folder
from ernie_pipeline.store.sealed import Files, discard, sealed_files, write_sealed_folder
from ernie_pipeline.store.shared.bucket import Bucket, BucketError, Listed, Version
from ernie_pipeline.store.shared.publication import side_by_side
from ernie_pipeline.store.shared.records import is_inside, packed, unpacked
from ernie_pipeline.utils.errors import PipelineError

HIDDEN = ".jobs"
"""In the place of the folder `jobs`: what it holds is in the bucket already, and is not carried there again."""
SUPERSEDED = b"superseded"
"""In the place of a heartbeat: another attempt is at work."""
TRIES, PAUSE_S = 5, 1.0
"""How often what the job made is fetched, while it comes damaged."""
PATIENCE_S = 5.0
"""Of one request: the step looks again soon, and must hear an interrupt meanwhile."""


class CarriedPlace(Place):
    """A `Place` whose truth is in a bucket: the folder here is a copy, made anew by each step."""

    def __init__(self, folder: Path, bucket: Bucket):
        super().__init__(folder.parent.with_name(HIDDEN) / folder.name)
        self.below, self._bucket, self._patient = job_place(folder), bucket, Bucket(bucket.address)
        self._record: dict[str, Any] = {"number": 0, "attempts": []}
        self._version: Version | None = None
        self._nonces: set[str] = set()
        self._messages = Receiver(bucket)
        self._known, self._beat, self._spoilt = False, "", ""

    @property
    def address(self) -> str:
        """See `Place.address`."""
        return f"{self._bucket.address}/{self.below}"

    def refresh(self) -> bool:
        """See `Place.refresh`. Raises `PipelineError` for what the job made if it is not there as it was sealed.

        At first it does not: then the attempt is `spoilt`, and unless it comes right the job is submitted again.
        """
        with _reached():
            first = not self._known
            if first:
                self._read_record()
            damaged = self._pull(self.attempt) if self.attempt else ""
        if not damaged or first or self.spoilt:
            self._spoilt = self.attempt if damaged else ""
        else:
            raise PipelineError(
                f"what {self.folder.name} made is not in {self.address} as it was sealed ({damaged}); run again: it "
                "goes on from what it has saved"
            )
        return True

    @property
    def spoilt(self) -> bool:
        """See `Place.spoilt`."""
        return self._spoilt != "" and self._spoilt == self.attempt

    def begin(self, anew: bool) -> Attempt:
        """See `Place.begin`: in the bucket first the earlier attempt is told, then the new one stands there."""
        attempts = self._record["attempts"]
        if attempts and not anew:  # what it said last
            with _reached():
                self._pull_messages(attempts[-1], self._bucket.list(f"{self.below}/{attempts[-1]}"))
        kept = [name for name in attempts if not anew and self._messages.heard(f"{self.below}/{name}")]
        self._beat = ""
        attempt = super().begin(anew)
        with _reached():
            if attempts:
                self._bucket.put(f"{self.below}/{attempts[-1]}/{HEARTBEAT}", SUPERSEDED)
            record = {
                "number": self._record["number"] + 1,
                "attempts": [*kept, attempt.name],
                "nonce": uuid.uuid4().hex,
            }
            self._write_record(record)
            self._forget(name for name in attempts if name not in kept)
        return attempt

    @property
    def number(self) -> int:
        """Of the attempt, from 1."""
        return int(self._record["number"])

    def ask_to_stop(self) -> None:
        """See `Place.ask_to_stop`."""
        super().ask_to_stop()
        with _reached():
            self._bucket.put(f"{self.below}/{self.attempt}/{STOP}", b"stop")

    def _read_record(self) -> None:
        """Whose turn it is, and all that was said before."""
        there = self._patient.get(f"{self.below}/{RECORD}")
        values = unpacked(there.body) if there else None
        self._version = there.version if there else None
        discard(self.folder)
        make_folder(self.folder, below=self.folder.parent.parent)
        if values:
            self._record = values
            *earlier, latest = values["attempts"]
            for attempt in earlier:
                self._pull_messages(attempt, self._patient.list(f"{self.below}/{attempt}"))
            self._attempt.write_text(latest)
        self._known = True

    def _write_record(self, record: dict[str, Any]) -> None:
        """Raises `PipelineError` where another step has written one since it was read."""
        key, body = f"{self.below}/{RECORD}", packed(record)
        self._nonces.add(record["nonce"])
        written = self._bucket.replace(key, body, self._version) if self._version else self._bucket.create(key, body)
        if written is None:  # perhaps an earlier one of this step, whose answer did not come in time
            there = self._bucket.get(key)
            values = unpacked(there.body) if there else None
            own = values is not None and values["nonce"] in self._nonces
            written = self._bucket.replace(key, body, there.version) if there and own else None
        if written is None:
            raise PipelineError(f"{self.address}: another step has taken this job over; run again, to follow it")
        self._record, self._version = record, written

    def _forget(self, attempts: Iterable[str]) -> None:
        """Remove what earlier attempts wrote, but who tells a late one that it is superseded."""
        for attempt in attempts:
            names = self._bucket.list(f"{self.below}/{attempt}")
            self._bucket.delete(f"{self.below}/{attempt}/{name}" for name in names if name != HEARTBEAT)

    def _pull(self, attempt: str) -> str:
        """Get what is new; what is wrong with what the job made, "" if nothing."""
        listed = self._bucket.list(f"{self.below}/{attempt}")
        self._pull_messages(attempt, listed)
        beat = listed.get(HEARTBEAT)
        if beat and beat.etag != self._beat:
            self._beat = beat.etag
            self.beat()
        if STOP in listed:
            super().ask_to_stop()
        for name in listed:
            start, _, file = name.partition("/")
            if file.startswith(ERROR) and file[len(ERROR) :].isdecimal() and not (self.folder / file).exists():
                self._bucket.download(f"{self.below}/{attempt}/{start}/{file}", self.folder / file)
        return self._fetch(attempt) if SEALED in listed and not self.sealed else ""

    def _pull_messages(self, attempt: str, listed: dict[str, Listed]) -> None:
        if came := self._messages.receive(f"{self.below}/{attempt}", listed):
            with self.messages.open("ab") as file:
                file.write(came)

    def _fetch(self, attempt: str) -> str:
        """Make the folder `out` of what the job has sealed, verified; the name of a file that comes damaged each time.

        A bucket that is away is told as it is at the next refresh.
        """
        there = self._patient.get(f"{self.below}/{attempt}/{SEALED}")
        values = unpacked(there.body) if there else None
        wanted = sealed_files(values) if values else None
        if not values or wanted is None or not all(map(is_inside, wanted)):
            return SEALED
        below, damaged = f"{self.below}/{attempt}/{values['start']}/{OUT}", ""
        for number in range(TRIES):
            time.sleep(PAUSE_S if number else 0)
            try:
                fill = _downloaded(self._patient, below, wanted)
                write_sealed_folder(self.out, LOCAL_SEALED, fill, lambda _: {"attempt": attempt}, what=self.folder.name)
                return ""
            except _DamagedError as error:
                damaged = str(error)
        return damaged


class _DamagedError(Exception):
    """A file is not the one that was sealed; the text is its name."""


def _downloaded(bucket: Bucket, below: str, wanted: Files) -> Callable[[Path], None]:
    def fetch(folder: Path, name: str) -> None:
        if bucket.download(f"{below}/{name}", folder / name) != wanted[name]["sha256"]:
            raise _DamagedError(name)

    def fill(folder: Path) -> None:
        side_by_side(lambda name: fetch(folder, name), wanted)

    return fill


@contextmanager
def _reached() -> Iterator[None]:
    """A bucket that is away is as an engine that is."""
    try:
        yield
    except BucketError as error:
        raise Unreachable(str(error)) from error
