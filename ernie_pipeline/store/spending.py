"""What jobs spend, kept on the disk while they run: so that it counts whatever ends them.

A file a job, written anew each second, in two places: in the folder of the unfinished build, where the build that
completes it finds what was spent before a kill; and in the run's, where the run's other steps see it. What stands there
and is no such file is set aside by who writes beside it.
"""

import json
import math
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ernie_pipeline.store.aside import make_folder, set_aside_unless
from ernie_pipeline.store.readable import NOT_READABLE, parse_json, read_file

PREFIX = "spent-"
REFRESH = "ERNIE_PIPELINE_REFRESH_NAME"
"""Set by `refresh` for the processes that it starts: the name under which they record what they spend."""
WRITE_S = 1.0
MOST_GPUS = 2**20
"""A record with more is none of ours."""


@dataclass(frozen=True)
class Spent:
    """`seconds` for which a job ran with `gpus` GPUs, 0 on a CPU; `stage`: for which; `began`: in seconds of 1970.

    `waited_s`: for which it had no place to run yet, which are none of them.
    """

    stage: str
    seconds: float
    gpus: int
    began: float = 0.0
    waited_s: float = 0.0

    @property
    def counted(self) -> float:
        """Seconds times GPUs; on a CPU the seconds."""
        return self.seconds * max(1, self.gpus)

    @property
    def gpu_seconds(self) -> float:
        """Seconds times GPUs."""
        return self.seconds * self.gpus


@dataclass(frozen=True)
class Total:
    """Several jobs together, as `Spent` has it."""

    counted: float = 0.0
    gpu_seconds: float = 0.0
    waited_s: float = 0.0


def total(jobs: Iterable[Spent]) -> Total:
    """What they spent together."""
    found = [*jobs]
    return Total(
        sum(job.counted for job in found), sum(job.gpu_seconds for job in found), sum(job.waited_s for job in found)
    )


def unfinished_place(unfinished: Path) -> Path:
    """Where in the folder of an unfinished build its jobs' files are."""
    return unfinished / "spent"


class SpendingRecord:
    """One job's record in each of `folders`, written as it goes. `clock` gives seconds.

    `share`: how much of it is at work from here on: 1 all of it, 0 while it waits for a place to run.
    """

    def __init__(self, stage: str, gpus: int, folders: Iterable[Path], clock: Callable[[], float], share: float = 1.0):
        self.stage, self.gpus, self.clock = stage, gpus, clock
        self._cleared = False
        self.files = [folder / f"{PREFIX}{uuid.uuid4().hex}.json" for folder in folders]
        self._seconds, self._waited_s, self._share = 0.0, 0.0, share
        self._counted, self.began = clock(), time.time()
        self._written = -WRITE_S

    def now(self) -> Spent:
        """What the job has spent so far."""
        now = self.clock()
        since, self._counted = now - self._counted, now
        self._seconds += since * self._share
        self._waited_s += since * (1 - self._share)
        return Spent(self.stage, round(self._seconds, 3), self.gpus, self.began, round(self._waited_s, 3))

    def at_work(self, share: float) -> None:
        """From now on so much of it is at work."""
        if share != self._share:
            self.now()
            self._share = share

    def write_if_due(self) -> bool:
        """Write it, once a second; whether it was written."""
        due = self.clock() - self._written >= WRITE_S
        if due:
            self.write()
        return due

    def write(self) -> None:
        """Write it: whole, or as it was before."""
        self._written = self.clock()
        text, cleared = json.dumps(asdict(self.now())), self._cleared
        self._cleared = True
        for file in self.files:
            with suppress(OSError):  # a full disk is for the job itself to tell
                make_folder(file.parent, below=file.parent.parent.parent)
                for other in () if cleared else file.parent.glob(f"{PREFIX}*.json"):
                    set_aside_unless(other, _is_record, "a record of what a job spent")
                new = file.with_suffix(".new")
                new.write_text(text, encoding="utf-8")
                new.replace(file)


def read_spent(folder: Path) -> list[Spent]:
    """The jobs whose records are in the folder, in their order. What cannot be read is passed over: it is advice."""
    found = [job for file in folder.glob(f"{PREFIX}*.json") if (job := _parsed(file))]
    return sorted(found, key=lambda job: job.began)


def _is_record(file: Path) -> bool:
    return _parsed(file) is not None


def _parsed(file: Path) -> Spent | None:
    try:
        values = parse_json(read_file(file))
        job = Spent(str(values["stage"]), float(values["seconds"]), int(values["gpus"]), float(values["began"]))
        job = replace(job, waited_s=float(values.get("waited_s", 0.0)))
    except NOT_READABLE:
        return None
    sensible = (
        0 <= job.seconds < math.inf
        and 0 <= job.waited_s < math.inf
        and 0 <= job.gpus <= MOST_GPUS
        and math.isfinite(job.began)
    )
    return job if sensible else None  # a sum with NaN is above no cap
