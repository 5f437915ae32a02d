"""The function's courier: what the child writes into its folder goes to the bucket, what the step asks comes back."""

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ernie_pipeline.launch.child import leave_error
from ernie_pipeline.launch.detached.place import SEALED as LOCAL_SEALED
from ernie_pipeline.launch.detached.place import Place
from ernie_pipeline.launch.modal.heartbeat import Heartbeat
from ernie_pipeline.launch.modal.keys import CALL, ERROR, OUT, SEALED, STOP
from ernie_pipeline.launch.modal.stream import Sender
from ernie_pipeline.store.sealed import discard, read_sealed, sealed_files
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline.store.shared.publication import upload
from ernie_pipeline.store.shared.records import packed

EVERY_S = 1.5
"""Google's storage takes one write of an object a second."""
PATIENCE_S = 5.0
"""Of one request while the job runs: what is not sent now is sent the next time."""
RESULT_PATIENCE_S = 1800.0
"""When the work is done, a bucket that is away for long costs less than to do it again."""
NOBODY = "another one"
"""In the place of the attempt's name, for the child to find that it is superseded."""


class Courier:
    """Carries between the child's folder and the folder of keys `attempt` of the home `address`.

    `limit_s`: the seconds of all starts of the function after which the child is asked to save and end; None: no limit.
    """

    def __init__(self, address: str, attempt: str, folder: Path, heartbeat: Heartbeat, limit_s: float | None):
        self.place, self._attempt, self._heartbeat, self._limit_s = Place(folder), attempt, heartbeat, limit_s
        self._bucket, self._patient = Bucket(address, PATIENCE_S), Bucket(address, RESULT_PATIENCE_S)
        self._below = f"{attempt}/{heartbeat.start:04d}"
        self._sender = Sender(self._below, self.place.messages)
        self._began, self._beat, self._told, self._silent = time.monotonic(), 0, set[str](), False
        self._past, self._ended, self._sending = "", False, threading.Lock()

    def prepare(self, attempt: str) -> None:
        """Make the child's folder, with nothing in it of another job. `attempt`: its name. Raises `BucketError`."""
        discard(self.place.folder)
        self.place.folder.mkdir(parents=True)
        (self.place.folder / "attempt").write_text(attempt)
        self._patient.get(f"{self._attempt}/{CALL}")  # which is there: a bucket that has answered once is waited for

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Carry, in a thread, until it ends."""
        done = threading.Event()
        thread = threading.Thread(target=self._carry_until, args=(done,), name="courier", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with suppress(BucketError, OSError):
                self._send(self._bucket)

    def interrupted(self) -> None:
        """The child is about to be ended, and started again: what it says of that is no failure for the step to hear.

        Unless the step has asked for it.
        """
        self._silent = not self.place.stop_asked or bool(self._past)

    def finish(self) -> None:
        """Send what the child said last and, if it has sealed it, what it made; it may be much. Raises `BucketError`.

        Once the child has ended; this process goes on beating. Of two starts of one attempt that both come to this, the
        first one counts.
        """
        self._ended = True
        if self._past:
            self._silent = True
            leave_error(self.place.folder, 0, self._past)
            self._send_errors(self._patient)
        self._send(self._patient)
        manifest = read_sealed(self.place.out / LOCAL_SEALED)[0] if self.place.sealed else {}
        files = sealed_files(manifest)
        if files is not None:
            upload(self._patient, self.place.out, files, f"{self._below}/{OUT}")
            sealed = packed({"start": f"{self._heartbeat.start:04d}", "files": files})
            self._patient.create(f"{self._attempt}/{SEALED}", sealed)

    def _carry_until(self, done: threading.Event) -> None:
        while not done.wait(EVERY_S):
            try:
                self._once()
            except (BucketError, OSError):
                continue  # the next time
            except Exception:
                traceback.print_exc()  # and it goes on: without a courier the job counts as lost

    def _once(self) -> None:
        beat = self.place.last_beat
        lives = self._ended or beat == 0 or beat != self._beat
        if lives and not self._heartbeat.beat(time.monotonic() - self._began):
            (self.place.folder / "attempt").write_text(NOBODY)
            return
        self._beat = beat
        if self._ended:
            return
        self._look_at_time()
        self._send(self._bucket)
        if not self.place.stop_asked and self._bucket.get(f"{self._attempt}/{STOP}"):
            self.place.ask_to_stop()

    def _look_at_time(self) -> None:
        spent_s = self._heartbeat.spent_s + time.monotonic() - self._began
        if self._limit_s and spent_s > self._limit_s and not self.place.stop_asked:
            self._past = (
                f"the job ran past its limit on Modal, {self._limit_s:g} s, and was ended; raise gpu.time_limit_s and "
                "ERNIE_PIPELINE_MODAL_TIMEOUT_S, or run again: it goes on from what it has saved"
            )
            self._silent = True
            self.place.ask_to_stop()

    def _send(self, bucket: Bucket) -> None:
        with self._sending:
            if not self._silent:
                self._sender.send(bucket)
                self._send_errors(bucket)

    def _send_errors(self, bucket: Bucket) -> None:
        for file in sorted(self.place.folder.glob(f"{ERROR}*")):
            if file.name not in self._told:
                bucket.put(f"{self._below}/{file.name}", file)
                self._told.add(file.name)
