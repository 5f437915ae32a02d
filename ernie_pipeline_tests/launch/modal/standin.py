"""A stand-in for Modal's own API, at the outermost edge: `modal.Function` and `modal.FunctionCall`, and nothing else.

A call is a process of its own that runs the function's body of `deploy/modal_app.py` as Modal's container does, with a
HOME, a cache, a temporary and a working folder of its own: it shares nothing with the step but the bucket and, with
other containers, the volume. What it keeps to, and where that is said (modal 1.6.4, and the pages of modal.com/docs):

- `Function.from_name(app, name)` asks nothing; `hydrate()` raises NotFoundError for an app that is not deployed
  (`_functions.py`, `_load` of `_from_name`).
- `spawn(*args)` gives at once an object with `object_id` (`_functions.py`), by which `FunctionCall.from_id` finds it
  later, in other processes too (guide/job-queue).
- `get(timeout=0)` (`_functions.py: poll_function`, `_utils/function_utils.py: _process_result`): Python's TimeoutError
  while there is no output; what the function returned or raised, pickled; InternalFailure for a lost machine;
  RemoteError for a container that crashed or a call that was cancelled; OutputExpiredError for one that Modal has
  forgotten.
- Preemption: "Modal will gracefully terminate the Function and restart it on the same input", SIGINT first, SIGKILL 30
  seconds later (guide/preemption, `modal.exception.simulate_preemption`); no output comes of it meanwhile
  (`_runtime/container_io_manager.py: handle_input_exception` hands KeyboardInterrupt on).
- `cancel()`: SIGUSR1 becomes InputCancellation in the main thread (`_container_entrypoint.py: call_function`), the
  output is of status TERMINATED, and it is not started again (`_functions.py: cancel`).
- A container that is gone takes all its processes with it.

Not played: queues, images, prices, the function's `timeout`, `retries`, and how fast any of it is.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modal
import modal.exception
import psutil
import pytest

from ernie_pipeline_tests.launch.children import gone, wait_until

KEPT = ("PATH", "PYTHONPATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")
"""Of this process's environment: what the image and the secrets are to a container."""
KILL_AFTER_S = 30


@dataclass(frozen=True)
class StandIn:
    """Modal, whose state is in a folder: steps in other processes find the same calls."""

    folder: Path
    spawned: list[Callable[[Any], None]] = field(default_factory=list)
    """What a test does between the submission of a call and its start."""

    def install(self, patch: pytest.MonkeyPatch) -> "StandIn":
        """From now on this process's `modal` is the stand-in."""
        patch.setattr(modal.Function, "from_name", lambda app, name: _Function(self, f"{app}/{name}"))
        patch.setattr(modal.FunctionCall, "from_id", lambda call: _Call(self.folder / call))
        return self

    @property
    def calls(self) -> "list[_Call]":
        """In the order in which they were spawned."""
        return [_Call(each) for each in sorted(self.folder.glob("fc-*"))]

    def end(self) -> None:
        """Of the test: leave no process behind."""
        for call in self.calls:
            call.kill()


@dataclass(frozen=True)
class _Function:
    modal: StandIn
    name: str

    def hydrate(self) -> None:
        if (self.modal.folder / "undeployed").exists():
            raise modal.exception.NotFoundError(f"App {self.name} not found")

    def spawn(self, *arguments: Any) -> "_Call":
        call = _Call(self.modal.folder / f"fc-{len(self.modal.calls):03d}")
        call.folder.mkdir(parents=True)
        (call.folder / "input").write_text(json.dumps(arguments))
        for do in self.modal.spawned:
            do(arguments)
        if not (self.modal.folder / "busy").exists():
            call.start()
        return call


@dataclass(frozen=True)
class _Call:
    folder: Path

    @property
    def object_id(self) -> str:
        return self.folder.name

    def get(self, timeout: float | None = None) -> Any:
        assert timeout == 0, "a step never waits for Modal"
        if not self.folder.exists():
            raise modal.exception.OutputExpiredError
        output = self.folder / "output"
        if output.exists():
            result = pickle.loads(output.read_bytes())
            if isinstance(result, BaseException):
                raise result
            return result
        if self.pid and gone(self.pid) and not (self.folder / "restarting").exists() and not output.exists():
            raise modal.exception.RemoteError("container exited")
        raise TimeoutError

    def cancel(self) -> None:
        if self.pid and not gone(self.pid):
            os.kill(self.pid, signal.SIGUSR1)
        self._put_out(modal.exception.RemoteError("cancelled"))
        (self.folder / "terminated").touch()

    def get_call_graph(self) -> list[Any]:
        status = modal.types.InputStatus.TERMINATED if (self.folder / "terminated").exists() else None
        return [_Input(self.object_id, status or modal.types.InputStatus.FAILURE)]

    def start(self) -> None:
        """A container for the input."""
        number = len([*self.folder.glob("container-*")])
        place = self.folder / f"container-{number}"
        for name in ("home", "tmp", "work"):
            (place / name).mkdir(parents=True)
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "ERNIE_PIPELINE_CACHE": str(place / "cache"),
            "ERNIE_PIPELINE_MODAL_MOUNT": str(self.folder.parent / "volume"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ernie_pipeline_tests.launch.modal.container_process", str(self.folder)],
                cwd=place / "work",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(process.pid))

    @property
    def pid(self) -> int:
        """Of the container's process; 0 before there is one."""
        return int((self.folder / "pid").read_text()) if (self.folder / "pid").exists() else 0

    @property
    def log(self) -> str:
        """What the containers printed."""
        return "\n".join(log.read_text() for log in sorted(self.folder.glob("container-*/log")))

    def family(self) -> list[psutil.Process]:
        """The container's processes; none once it is gone."""
        try:
            container = psutil.Process(self.pid or -1)
            return [container, *container.children(recursive=True)]
        except (psutil.Error, ValueError):
            return []

    def kill(self) -> None:
        """The container is gone, with all that is in it."""
        for process in self.family():
            with suppress(psutil.Error):
                process.kill()

    def lose(self) -> None:
        """The machine is lost, and Modal gives up on the input."""
        self._put_out(modal.exception.InternalFailure("worker lost"))
        self.kill()

    def restart_killed(self) -> None:
        """The machine is lost, and Modal starts the input again on another one."""
        (self.folder / "restarting").touch()
        self.kill()
        self.start()
        (self.folder / "restarting").unlink()

    def preempt(self) -> None:
        """Modal wants the machine back."""
        (self.folder / "restarting").touch()
        before = self.pid
        os.kill(before, signal.SIGINT)
        try:
            wait_until(lambda: gone(before), KILL_AFTER_S)
        except AssertionError:
            self.kill()
        self.start()
        (self.folder / "restarting").unlink()

    def _put_out(self, result: object) -> None:
        if not (self.folder / "output").exists():
            (self.folder / "output").write_bytes(pickle.dumps(result))


@dataclass(frozen=True)
class _Input:
    function_call_id: str
    status: Any
