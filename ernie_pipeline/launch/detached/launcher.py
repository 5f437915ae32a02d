"""The launcher of jobs that outlive their steps: what a step finds of its job it follows or takes over."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg

from ernie_pipeline.launch.detached.engine import Engine, KeepsJobs, Unreachable
from ernie_pipeline.launch.detached.followed import Followed, PastLimit, Patience
from ernie_pipeline.launch.detached.place import Place
from ernie_pipeline.launch.ending import SAME_INTERRUPT_S, interrupts_noted
from ernie_pipeline.launch.launcher import Launch, OnProgress, ignore_progress
from ernie_pipeline.models.rows_job import may_be_shared
from ernie_pipeline.store.row_part import RowPart
from ernie_pipeline.utils.errors import PipelineError

POLL_S = 0.25
FOLDER = "jobs"
"""Below the build's folder for unfinished work: a folder for each of its jobs."""


@dataclass(frozen=True)
class DetachedLauncher:
    """Jobs on an engine. Work by row is shared by `workers` jobs first, each of which answers and keeps its part.

    `place`: gives the `Place` of a folder, of another kind where step and job share no disk.
    """

    engine: Engine
    patience: Patience = field(default_factory=Patience)
    workers: int = 1
    place: Callable[[Path], Place] = Place

    def run(self, context: dg.AssetExecutionContext, launch: Launch, on_progress: OnProgress = ignore_progress) -> None:
        """See `Launcher.run`. Only an interrupt or the time limit stops the job; a step that dies leaves it running."""
        if launch.state is None:
            raise ValueError("a job that outlives its step needs a folder that does")
        place = self._place(launch, launch.name)
        parts = [(part, self._place(part, name)) for name, part in self._parts(launch).items()]
        if not place.intact() and parts:
            self._follow(context, parts, ignore_progress)
        self._follow(context, [(launch, place)], on_progress)
        if not place.take_over(launch.job.out):  # type: ignore[attr-defined]
            raise PipelineError(f"what {launch.name} made in {place.out} is not as it was sealed; run again")
        self._forget([*parts, (launch, place)])

    def _parts(self, launch: Launch) -> dict[str, Launch]:
        """A job for each part of the rows, by name; none where the work has no rows to share."""
        if self.workers == 1 or not may_be_shared(launch.job):
            return {}
        parts = [RowPart(number=n, of=self.workers) for n in range(self.workers)]
        return {
            f"{launch.name}-{part.number + 1}-of-{part.of}": replace(
                launch, job=launch.job.model_copy(update={"part": part})
            )
            for part in parts
        }

    def _place(self, launch: Launch, name: str) -> Place:
        assert launch.state is not None
        place = self.place(launch.state / FOLDER / name)
        place.refresh()
        return place

    def _forget(self, jobs: Sequence[tuple[Launch, Place]]) -> None:
        """Have the engine remove what it keeps of jobs whose files the step has, whichever step began them."""
        if not isinstance(self.engine, KeepsJobs):
            return
        for launch, place in jobs:
            with suppress(Unreachable):
                self.engine.forget(job_key(launch, place))

    def _follow(
        self, context: dg.AssetExecutionContext, jobs: Sequence[tuple[Launch, Place]], on_progress: OnProgress
    ) -> None:
        """Follow jobs until all of them are done; one that fails ends the others."""
        with ExitStack() as stack:
            followed: list[Followed] = []
            try:
                for launch, place in jobs:
                    one = Followed(
                        context, launch, self.engine, job_key(launch, place), place, self.patience, on_progress
                    )
                    followed.append(one)
                    one.begin(stack.enter_context(one.open_session()))
                while len([one for one in followed if one.poll()]) < len(followed):
                    jobs[0][0].at_work(sum(one.at_work for one in followed) / len(followed))
                    time.sleep(POLL_S)
                jobs[0][0].at_work(0.0)  # another one may have to wait now
            except Unreachable:
                raise  # what runs goes on, and the next step finds it
            except BaseException as error:
                asked = isinstance(error, PastLimit) or not isinstance(error, PipelineError)
                try:
                    for one in followed if not asked else ():
                        one.show_output()
                finally:
                    _end(followed, asked)
                said = next((one.listener.failure for one in followed if one.listener.failure), "")
                if isinstance(error, PastLimit) and said:
                    raise PipelineError(f"{error} ({said})") from error
                if said and not isinstance(error, PipelineError):
                    context.log.info(said)
                raise


def job_key(launch: Launch, place: Place) -> str:
    """What its names on the engine begin with: what is built and where, so that it is found, and by nobody else.

    Two homes may build the same thing on one engine.
    """
    where = hashlib.sha256(place.address.encode()).hexdigest()[:8]
    return f"ernie-{launch.key}-{where}"


def _end(followed: Sequence[Followed], asked: bool) -> None:
    """End the jobs. `asked`: they have their time to save what they did; else one has failed, and all end now."""
    with interrupts_noted() as interrupts:
        start, grace_s = time.monotonic(), max((one.launch.stop_grace_s for one in followed), default=0.0)
        left = [one for one in followed if not one.done]
        for one in left if asked else ():
            with suppress(Unreachable):
                one.ask_to_stop()
        while asked and left and time.monotonic() - start < grace_s:
            if any(when - start > SAME_INTERRUPT_S for when in interrupts):
                break
            time.sleep(POLL_S)
            left = [one for one in left if not one.has_ended()]
        for one in left:
            with suppress(Unreachable):
                one.engine.stop(one.name)
