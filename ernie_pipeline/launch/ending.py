"""The end of a child: it is asked to, so that it may save its work, then made to, with all that it started."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

POLL_S = 0.1
SAME_INTERRUPT_S = 5.0
"""Ctrl-C reaches a step twice, from the terminal and by way of Dagster's executor. A later one is a second Ctrl-C."""


def end(child: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """End a child that leads its own process group, with all that it started, if it has not ended by itself.

    It gets SIGTERM and `grace_s` seconds, then SIGKILL. An interrupt meanwhile is no reason to leave it behind: one
    that comes more than `SAME_INTERRUPT_S` after the first ends the waiting.
    """
    if child.poll() is None:
        with interrupts_noted() as interrupts:
            family = _descendants(child.pid)
            child.terminate()
            start = time.monotonic()
            while child.poll() is None and time.monotonic() - start < grace_s:
                if any(when - start > SAME_INTERRUPT_S for when in interrupts):
                    break
                time.sleep(POLL_S)
            for process in [*family, *_descendants(child.pid)]:
                _kill(process)
    with suppress(ProcessLookupError, PermissionError):  # nothing is left of the group, or nothing but the dead
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextmanager
def interrupts_noted() -> Iterator[list[float]]:
    """The times of the interrupts that come meanwhile, which raise nothing; only a main thread gets any."""
    noted: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: noted.append(time.monotonic())) for number in numbers}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _descendants(pid: int) -> "list[psutil.Process]":
    """Those of other process groups too: torchrun gives each of its processes one."""
    import psutil  # not needed to open the code location

    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _kill(process: "psutil.Process") -> None:
    import psutil

    with suppress(psutil.Error):
        process.kill()  # psutil makes sure that it is still the same one
