"""Whether the process that waits for this one is still there: nobody else reads what this one goes on to make."""

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

POLL_S = 1.0
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"


class Parent(BaseModel):
    """A process that waits: its number, and when it began, which no later one with its number shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start: str


def this_process() -> Parent:
    """The one that calls."""
    return Parent(pid=os.getpid(), start=_start(os.getpid()))


def end_with(step: Parent) -> None:
    """End this process as soon as the step, or the process in between, is gone; else never return.

    The step may be gone before this process, still importing, could ask who its parent is; torchrun, which stands
    between the two when there are several, ends with its processes and they with it.
    """
    parent = os.getppid() if UNDER_TORCHRUN in os.environ else step.pid
    while os.getppid() == parent and _start(step.pid) == step.start:
        time.sleep(POLL_S)
    os._exit(1)


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
