"""Dagster as a command's own process: what is asked of the command is asked of it, and nothing of it is left behind."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ernie_pipeline.launch.parent import of_this_command
from ernie_pipeline.recipe.side_by_side import as_selected

QUIET = ("-W", "ignore:Function `asset_materialize_command` is superseded")
"""Each start of it says that Dagster recommends `dg launch`; the README's commands are quiet by PYTHONWARNINGS."""
MATERIALIZE = (*QUIET, "-m", "dagster", "asset", "materialize", "-m", "ernie_pipeline.definitions", "--select")
LOOK_S = 0.2
"""How often who watches is called."""


@dataclass(frozen=True)
class Ended:
    """How Dagster ended: its exit status, what it said where that was asked for, and the signal that interrupted it."""

    returncode: int
    stdout: str
    signal: int | None = None


def materialize(
    assets: Iterable[str],
    environment: Mapping[str, str],
    *more: str,
    watch: Callable[[], None] | None = None,
    **started: Any,
) -> Ended:
    """Let Dagster build the assets, and wait until it and its steps have ended.

    SIGINT, SIGTERM and SIGHUP interrupt it, once each: it cancels its run, whose work is saved. So does the end of this
    process, should it be killed. `more`: of its arguments; `watch` is called meanwhile; `started`: how, as
    `subprocess.Popen` takes it.
    """
    selected, environment = as_selected(assets, environment)
    command = [sys.executable, *MATERIALIZE, selected, *more]
    with _interrupts() as (hand_to, signals):
        # in a group of its own: Ctrl-C is for this process, which tells Dagster alone. The helpers of its log, told by
        # the terminal too, would each print a traceback
        run = subprocess.Popen(command, env={**environment, **of_this_command()}, text=True, process_group=0, **started)
        hand_to(run)
        said = _followed(run, watch)
    return Ended(run.returncode, said, signals[0] if signals else None)


def _followed(run: "subprocess.Popen[str]", watch: Callable[[], None] | None) -> str:
    """What it said, once it has ended."""
    while True:
        try:
            said, _ = run.communicate(timeout=LOOK_S if watch else None)
        except subprocess.TimeoutExpired:
            assert watch, "without it there is no time to run out"
            watch()
        else:
            if watch:
                watch()
            return said or ""


@contextmanager
def _interrupts() -> Iterator[tuple[Callable[["subprocess.Popen[str]"], None], list[int]]]:
    """Signals that would end this process do not meanwhile: the process that is given is interrupted instead. Those
    that came are in the list."""
    runs: list[subprocess.Popen[str]] = []
    came: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        came.append(number)
        if runs:
            runs[0].send_signal(signal.SIGINT)

    def hand_to(run: "subprocess.Popen[str]") -> None:
        runs.append(run)
        if hangs_up:
            signal.signal(signal.SIGHUP, pass_on)
        if came:
            run.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    # a terminal that is closed tells Dagster too, which would end at once: it is started deaf to that. With nohup this
    # process is so itself, and stays it
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hangs_up = before[signal.SIGHUP] is not signal.SIG_IGN
    try:
        yield hand_to, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
