"""What the launch's tests ask of real processes."""

import time
from collections.abc import Callable

import psutil


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
