"""What the launch's tests ask of real processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from ernie_pipeline.launch.work import WorkKind
from ernie_pipeline.models.device import DeviceLimits


class ChildJob(BaseModel):
    """What a test's own work is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path
    number: int = 42
    limits: DeviceLimits = DeviceLimits()


def work_in(module: str) -> WorkKind:
    """The function `work` of a module, called by the module's name."""
    return WorkKind(name=module, function=f"{module}:work", job=f"{ChildJob.__module__}:{ChildJob.__qualname__}")


def python_path(folder: Path) -> str:
    """A PYTHONPATH by which a child finds modules in the folder, and the one with `ChildJob`."""
    return os.pathsep.join([str(folder), str(Path(__file__).parents[2])])


def wait_until(done: Callable[[], bool], seconds: float = 30) -> None:
    """Fail unless it happens in time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def left_of(name: str) -> list[int]:
    """The numbers of the running processes whose command line has `name` in it."""
    found = []
    for process in psutil.process_iter():
        try:
            if name in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
