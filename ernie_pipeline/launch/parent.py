"""Whether the process that waits for this one is still there: nobody else reads what this one goes on to make."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import psutil

POLL_S = 1.0
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"
RUN_PROCESS = "ERNIE_PIPELINE_RUN_PROCESS"
"""The environment variable that tells a run's steps which process is the run's own."""
COMMAND_PROCESS = "ERNIE_PIPELINE_COMMAND_PROCESS"
"""The one that tells a run which command has started it."""
WATCH = "ends with the run"
GRACE_S = 5.0
"""What a step's children get to save their work when the run's own process is gone, before they are killed."""


class Parent(BaseModel):
    """A process that waits: its number, and when it began, which no later one with its number shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start: str


def this_process() -> Parent:
    """The one that calls."""
    return Parent(pid=os.getpid(), start=_start(os.getpid()))


def end_with(step: Parent) -> None:
    """End this process, and all that it started, as soon as the step, or the process in between, is gone; else never
    return.

    The step may be gone before this process, still importing, could ask who its parent is; torchrun, which stands
    between the two when there are several, ends with its processes and they with it.
    """
    parent = os.getppid() if UNDER_TORCHRUN in os.environ else step.pid
    while os.getppid() == parent and _start(step.pid) == step.start:
        time.sleep(POLL_S)
    try:
        _kill_family([])
    finally:
        os._exit(1)


def of_this_command() -> dict[str, str]:
    """What says to a run that is started with it in its environment that this process is its command."""
    return {COMMAND_PROCESS: this_process().model_dump_json()}


def interrupt_with_command() -> None:
    """From now on, interrupt this process, a run's own, as soon as the command that has said that it started it is
    gone: one that was killed could not do so itself."""
    command = Parent.model_validate_json(os.environ[COMMAND_PROCESS])
    threading.Thread(target=_interrupt_after, args=(command,), name="ends with the command", daemon=True).start()


def _interrupt_after(command: Parent) -> None:
    while _start(command.pid) == command.start:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGINT)


def tell_steps_who_runs_them() -> None:
    """Say to the processes that this one starts, and those that they start, that this is the run's own."""
    os.environ[RUN_PROCESS] = this_process().model_dump_json()


def end_with_run() -> None:
    """From now on, end this step's process and all that it started as soon as the run's own process is gone.

    Dagster's does not see to it, however the step was started: what it reports is then read by nobody, and the next run
    would wait for its lock. Does nothing in the run's own process, nor where none has said that it is it.
    """
    told = os.environ.get(RUN_PROCESS)
    run = Parent.model_validate_json(told) if told else None
    if run and run.pid != os.getpid() and WATCH not in (thread.name for thread in threading.enumerate()):
        threading.Thread(target=_end_after, args=(run,), name=WATCH, daemon=True).start()


def _end_after(run: Parent) -> None:
    while _start(run.pid) == run.start:
        time.sleep(POLL_S)
    try:
        _end_children(GRACE_S)
    finally:
        os._exit(1)


def _end_children(grace_s: float) -> None:
    """Ask those that the launcher started to save their work and end; then kill them, and all that there is."""
    import psutil  # not needed to open the code location

    own = psutil.Process()
    family, asked = own.children(recursive=True), list[psutil.Process]()
    for process in own.children():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == process.pid:  # Dagster's own, which copy the output, are in this one's session
                process.terminate()
                asked.append(process)
    psutil.wait_procs(asked, timeout=grace_s)
    _kill_family(family)


def _kill_family(family: "list[psutil.Process]") -> None:
    """Kill those, and all that this process has started."""
    import psutil

    for process in {*family, *psutil.Process().children(recursive=True)}:
        with suppress(psutil.Error):
            process.kill()  # psutil makes sure that it is still the same one


def _start(pid: int) -> str:
    """When the process began, which no later one with its number shares; "" when it is gone.

    Where there is no /proc, "running": a number that was given again is then not noticed.
    """
    try:
        if Path("/proc/self/stat").exists():
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if state in "ZX" else fields[18]  # proc(5): 3 is the state, 22 the start in clock ticks
        os.kill(pid, 0)
    except (OSError, ValueError):
        return ""
    return "running"
