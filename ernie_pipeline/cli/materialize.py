"""Dagster as a command's own process: what is asked of the command is asked of it, and nothing of it is left behind."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ernie_pipeline.recipe.side_by_side import as_selected

MATERIALIZE = ("-m", "dagster", "asset", "materialize", "-m", "ernie_pipeline.definitions", "--select")


def materialize(
    assets: Iterable[str], environment: Mapping[str, str], *more: str, **started: Any
) -> "subprocess.CompletedProcess[str]":
    """Let Dagster build the assets, and wait until it and its steps have ended.

    SIGTERM and SIGHUP interrupt it, as Ctrl-C does: it cancels its run, whose work is saved. `more`: of its arguments;
    `started`: how, as `subprocess.Popen` takes it.
    """
    selected, environment = as_selected(assets, environment)
    command = [sys.executable, *MATERIALIZE, selected, *more]
    with _interrupts() as hand_to:
        run = subprocess.Popen(command, env=dict(environment), text=True, **started)
        hand_to(run)
        said, _ = run.communicate()
    return subprocess.CompletedProcess(command, run.returncode, said)


@contextmanager
def _interrupts() -> Iterator[Callable[["subprocess.Popen[str]"], None]]:
    """Signals that would end this process do not meanwhile: the process that is given is interrupted instead."""
    runs: list[subprocess.Popen[str]] = []
    early: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            return  # Dagster was interrupted by the same key
        if runs:
            runs[0].send_signal(signal.SIGINT)
        else:
            early.append(number)

    def hand_to(run: "subprocess.Popen[str]") -> None:
        runs.append(run)
        if hangs_up:
            signal.signal(signal.SIGHUP, pass_on)
        if early:
            run.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    # a terminal that is closed tells Dagster too, which would end at once: it is started deaf to that. With nohup this
    # process is so itself, and stays it
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hangs_up = before[signal.SIGHUP] is not signal.SIG_IGN
    try:
        yield hand_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
