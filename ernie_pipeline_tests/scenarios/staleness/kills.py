"""The story of one home: run after run is killed in the middle of a stage, and the next one goes on.

At last two runs are started at once. The home that they complete is the one that all other scenarios copy.
"""

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, Planned, Run, Started, finish, left_half_written
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace

DEFAULT_EXECUTOR: dict[str, Any] = {}
WAIT_S = 120


@dataclass(frozen=True)
class Kill:
    """One run that was ended by SIGKILL: in which stages, what they left behind, and what the plan then said."""

    during: tuple[str, ...]
    run: Run
    half_written: list[str]
    whole: list[str]
    planned: Planned
    registered: list[tuple[int, bool]]
    orphans: list[psutil.Process]


@dataclass(frozen=True)
class Story:
    """The kills, and the two runs at once that went through."""

    place: Workplace
    kills: list[Kill]
    last: tuple[Run, Run]

    def kill(self, stage: str) -> Kill:
        """The one during this stage."""
        return next(kill for kill in self.kills if stage in kill.during)


def tell(place: Workplace) -> Story:
    """Build a home from nothing, with five kills."""
    kills = [
        _kill(place, "raw_nemotron"),
        _kill(place, "math_split"),
        # side by side, each in a step's process with a child that loads the model; the children are left alone
        _kill(place, "base_evaluation", "qlora_adapter", config=DEFAULT_EXECUTOR, spare="ernie_pipeline."),
        _kill(place, "adapter_evaluation"),
        _kill(place, "registered_model", when=lambda: bool(registered_versions(place.home))),
    ]
    first, second = place.start(), place.start()
    return Story(place, kills, (finish(first), finish(second)))


def registered_versions(home: Path) -> list[tuple[int, bool]]:
    """Each version of the model in the registry: its number, and whether it was loaded back and compared."""
    if not (home / "mlflow.db").is_file():
        return []
    checked = "SELECT version FROM model_version_tags WHERE key = 'check.max_logit_difference'"
    # to be written as well: what a killed process left of a transaction has to be rolled back before it is read
    connection = sqlite3.connect(f"file:{home / 'mlflow.db'}?mode=rw", uri=True)
    try:
        return [
            (int(version), bool(is_checked))
            for version, is_checked in connection.execute(
                f"SELECT version, version IN ({checked}) FROM model_versions WHERE current_stage <> 'Deleted_Internal'"
            )
        ]
    except sqlite3.OperationalError:  # its tables are just being made
        return []
    finally:
        connection.close()


def _kill(
    place: Workplace,
    *stages: str,
    config: dict[str, Any] = IN_PROCESS,
    spare: str = "",
    when: Callable[[], bool] = lambda: True,
) -> Kill:
    """Start a run and kill it, all its processes but those whose module begins with `spare`, within these stages."""
    started = place.start(config=config)
    _wait(
        started,
        lambda: all(left_half_written(place.home, stage) for stage in stages) and when() and _children(started, stages),
    )
    family = started.family
    orphans = [process for process in family if spare and _runs(process, spare)]
    for process in family:
        if process not in orphans:
            process.kill()
    half_written = sorted(path.parent.name for path in left_half_written(place.home))
    whole = sorted(path.parent.name for path in place.home.glob("store/*/[!.]*") if path.parent.name[0] != ".")
    registered = registered_versions(place.home)
    return Kill(stages, finish(started), half_written, whole, place.plan(), registered, orphans)


def _children(started: Started, stages: tuple[str, ...]) -> bool:
    """Whether each stage that works in a child process has one by now."""
    wanted = sum(stage.endswith(("_adapter", "_evaluation")) for stage in stages)
    return sum(_runs(process, "ernie_pipeline.") for process in started.family) >= wanted


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        _, option, name, *_ = [*process.cmdline(), "", "", ""]
    except psutil.Error:
        return False
    return option == "-m" and name.startswith(module)


def _wait(started: Started, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not reached():
        if started.process.poll() is not None or time.monotonic() > deadline:
            os.killpg(started.process.pid, signal.SIGKILL) if started.process.poll() is None else None
            raise AssertionError(f"the run did not come so far: {finish(started).output[-5000:]}")
        time.sleep(0.01)
