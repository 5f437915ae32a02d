"""The function's body: a job's inputs are fetched, the child of every launcher is started, what it writes is carried.

It may be ended at any time. Interrupted, as before Modal takes the machine away, it lets the child save, sends the
checkpoint and ends; Modal then starts it again with the same input, and it goes on from there. Killed outright, it goes
on from what was sent last.
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dagster_pipes import encode_param
from pydantic import ValidationError

from ernie_pipeline.launch.child import leave_error
from ernie_pipeline.launch.detached.life import LOST, SUPERSEDED
from ernie_pipeline.launch.detached.place import Attempt
from ernie_pipeline.launch.ending import end, interrupts_noted
from ernie_pipeline.launch.envelope import Envelope, find_work
from ernie_pipeline.launch.modal.call import PACKAGE, Call, code_version, placed
from ernie_pipeline.launch.modal.carrying import PATIENCE_S, Courier
from ernie_pipeline.launch.modal.heartbeat import Heartbeat
from ernie_pipeline.launch.modal.keys import CALL, CHECKPOINTS, ERROR, STARTS
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.store.sealed import discard
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline.store.shared.carried import Carrier
from ernie_pipeline.store.shared.format import check_format
from ernie_pipeline.store.shared.store import SharedStore
from ernie_pipeline.utils.errors import PipelineError

SAVE_S = 15.0
"""What an interrupted child gets to save: Modal kills the container 30 s after the interrupt, and the checkpoint must
be sent before."""
STEP_FIRST_S = 60.0
"""A step that is there asks a job to stop before the function does, and says why."""
LAST_LINES = 60
OTHER_CODE = "the app on Modal has other code than the step; deploy it again: modal deploy deploy/modal_app.py"
POLL_S = 0.25

Ended = dict[str, Any]
"""`exit_status` and `output`, as `Status` has them."""


@dataclass(frozen=True)
class Disks:
    """Folders of the container. `cache`: of its own; `volume`: which later ones find again, and `keep` commits it."""

    cache: Path
    volume: Path
    keep: Callable[[], None] = lambda: None

    def places(self) -> dict[str, Path]:
        """Where what is below each path of the home is, see `placed`."""
        bases, compiled = self.volume / "bases", self.volume / "compiled"
        return {"store/.bases": bases, "store/.compiled": compiled, "": self.cache}


@dataclass(frozen=True)
class Input:
    """Where the job is: in the home `address`, below the key `below`, as the `attempt`. `digest`: the SHA-256 of the
    object that says what is to be done, which came by way of the bucket, and not of Modal."""

    address: str
    below: str
    attempt: str
    digest: str


def run(job: Input, disks: Disks, limit_s: float | None = None) -> Ended:
    """Do the job. `limit_s`: for all starts of it together.

    Raises nothing but an interrupt: an error of its own would be told by Modal, and one by the name of TimeoutError as
    if it were still at work.
    """
    try:
        with _terminated_as_interrupted():
            return _Start(job, disks, limit_s).do()
    except BucketError as error:
        return {"exit_status": LOST, "output": str(error)}
    except Exception:
        return {"exit_status": 1, "output": traceback.format_exc()}


class _Start:
    """One start of the function on one input."""

    def __init__(self, job: Input, disks: Disks, limit_s: float | None):
        self.address, self.disks, self.limit_s = job.address, disks, limit_s
        self.below, self.attempt, self.digest = job.below, job.attempt, job.digest
        self.output: deque[str] = deque(maxlen=LAST_LINES)

    def do(self) -> Ended:
        """See `run`. Raises `BucketError` for a bucket that is away."""
        bucket, impatient = Bucket(self.address), Bucket(self.address, PATIENCE_S)
        heartbeat = Heartbeat(impatient, f"{self.below}/{self.attempt}")
        stored = bucket.get(f"{self.below}/{self.attempt}/{CALL}")
        if stored is None or not heartbeat.take():
            return {"exit_status": SUPERSEDED, "output": "another attempt has the job"}
        if hashlib.sha256(stored.body).hexdigest() != self.digest:
            return {"exit_status": LOST, "output": f"the job in {self.address} is not the one that was submitted"}
        try:
            call = Call.model_validate_json(stored.body)
        except ValidationError:
            call = None
        refusal = _newer_format(bucket) or (OTHER_CODE if call is None or call.code != code_version() else "")
        if call is None or refusal:
            bucket.put(f"{self.below}/{self.attempt}/{heartbeat.start:04d}/{ERROR}0", refusal.encode())
            return {"exit_status": 1, "output": refusal}
        limits = [limit for limit in (call.limit_s and call.limit_s + STEP_FIRST_S, self.limit_s) if limit]
        folder = self.disks.cache / self.below
        courier = Courier(self.address, f"{self.below}/{self.attempt}", folder, heartbeat, min(limits, default=None))
        discard(self.disks.cache / call.state)  # a container may have done other jobs before
        courier.prepare(self.attempt)
        carrier = self._carrier(bucket, call, heartbeat.start)
        with courier.at_work():
            with carrier.at_work():
                status = self._work(call, folder, courier)
            courier.finish()
        with suppress(Exception):  # the next container quantizes and compiles again
            self.disks.keep()
        return {"exit_status": status, "output": "".join(self.output)}

    def _carrier(self, bucket: Bucket, call: Call, start: int) -> Carrier:
        """Of checkpoints and rows. What another launcher has left of the build is brought too."""
        root, key = self.disks.cache / "store", (Path(call.state).parts[-2], Path(call.state).parts[-1])
        rows = call.job.get("rows")
        kept = Path(placed(rows, self.disks.places())["folder"]) if isinstance(rows, dict) else None
        Carrier(bucket, root, key, 0, None).bring()
        token = call.number * STARTS + start
        return Carrier(bucket, root, key, token, kept, f"{self.below}/{CHECKPOINTS}")

    def _work(self, call: Call, folder: Path, courier: Courier) -> int:
        """The child's exit status."""
        try:
            self._check(call)
            self._fetch(call)
            return self._follow(call, folder, courier)
        except BucketError:
            raise
        except PipelineError as error:
            leave_error(folder, 0, str(error))
            return 1
        except BaseException:  # interrupted before the child was there
            courier.interrupted()
            raise

    def _check(self, call: Call) -> None:
        if other := call.other_library():
            raise PipelineError(
                f"the app on Modal has another version of {other} than the step; install what uv.lock says "
                "(uv sync --frozen), and deploy the app again (modal deploy deploy/modal_app.py)"
            )

    def _fetch(self, call: Call) -> None:
        """The artifacts that the job reads, verified."""
        store = SharedStore(self.disks.cache / "store", Bucket(self.address), fetch=True)
        for stage, fingerprint in call.artifacts():
            artifact, problem = store.find(stage, fingerprint)
            if artifact is None:
                raise PipelineError(f"{stage} {fingerprint} is not to be had in {self.address}: {problem}; run again")

    def _follow(self, call: Call, folder: Path, courier: Courier) -> int:
        """Start the child and wait for its end; one that is interrupted saves first."""
        attempt, places = Attempt(folder=folder, name=self.attempt), self.disks.places()
        envelope = Envelope(work=call.work, job=placed(call.job, places), attempt=attempt)
        job_file = folder / f"{find_work(call.work).name}.json"
        job_file.write_text(envelope.model_dump_json(indent=1), encoding="utf-8")
        child = subprocess.Popen(
            command(job_file, call.processes),
            env={**os.environ, **self._variables(call, folder)},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert child.stdout
        reader = threading.Thread(target=self._read, args=(child.stdout,), daemon=True)
        reader.start()
        try:
            while child.poll() is None:
                time.sleep(POLL_S)
        except BaseException:
            with interrupts_noted():
                courier.interrupted()
                end(child, min(SAVE_S, call.stop_grace_s))
            raise
        reader.join(timeout=5)
        return child.returncode

    def _read(self, lines: IO[bytes]) -> None:
        """What the child prints is Modal's log too."""
        for line in lines:
            text = line.decode(errors="replace")
            self.output.append(text)
            print(text, end="", file=sys.stderr, flush=True)

    def _variables(self, call: Call, folder: Path) -> Mapping[str, str]:
        pipes = {"DAGSTER_PIPES_MESSAGES": encode_param({"path": str(folder / "messages.jsonl")})}
        path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))
        given = placed(call.variables, self.disks.places())
        return {**given, **pipes, **surroundings(call.processes, call.stop_grace_s), "PYTHONPATH": path}


def _newer_format(bucket: Bucket) -> str:
    """The sentence for a home that a newer version of this package has written in since the job was submitted."""
    try:
        check_format(bucket)
    except BucketError:
        raise
    except PipelineError as error:
        return str(error)
    return ""


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A SIGTERM is heard as Ctrl-C is; only in a main thread, where Modal calls functions like ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
