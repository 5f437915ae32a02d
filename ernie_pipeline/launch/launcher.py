"""What every launcher takes and gives: a typed job in; live messages, and the job's folder filled, out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from pydantic import BaseModel

from ernie_pipeline.launch.envelope import find_work
from ernie_pipeline.launch.work import WorkKind

STOP_GRACE_S = 120.0

OnProgress = Callable[[dict[str, Any]], None]
"""Called with the values that the work reports, while it runs."""


def ignore_progress(values: dict[str, Any]) -> None:
    """For work whose progress nobody watches."""


def never() -> str:
    """For work that nothing stops but what is said of it."""
    return ""


def ignore_share(share: float) -> None:
    """For work that nobody meters."""


@dataclass(frozen=True)
class Launch:
    """A job, and what it may take. Nothing of this decides what comes out of it.

    `work`: a name in `WORK`, or work that is not in that table; `job`: of the class that the work takes, with a folder
    `out` to fill. Several `processes` share it, `threads` each; all get `environment`. One that is to end, for it was
    cancelled, ran past `time_limit_s`, or `stop_if`, which is asked each second, gives a sentence that says why,
    is asked to and has `stop_grace_s` seconds to save its work. `at_work` is told how much of it runs, from 0 to
    1, where it may have to wait for a place.

    `key` names what is built (the stage and its fingerprint), and `state` is the build's folder for unfinished work,
    which outlives the step: by them a launcher whose jobs outlive their steps finds a job again.
    """

    work: str | WorkKind
    job: BaseModel
    threads: int
    processes: int = 1
    memory_gib: float | None = None
    time_limit_s: float | None = None
    stop_grace_s: float = STOP_GRACE_S
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_if: Callable[[], str] = never
    at_work: Callable[[float], None] = ignore_share
    key: str = ""
    state: Path | None = None

    @property
    def name(self) -> str:
        """What the work is called in sentences."""
        return find_work(self.work).name


class Launcher(Protocol):
    """Where a job's processes run, and how one follows them."""

    def run(self, context: dg.AssetExecutionContext, launch: Launch, on_progress: OnProgress = ignore_progress) -> None:
        """Do the job and wait; its log lines and progress reach Dagster meanwhile, and its folder is filled at the end.

        Raises `PipelineError` with the job's own sentence, or one that says how it died. An interrupt stops the job,
        which saves its work first.
        """
