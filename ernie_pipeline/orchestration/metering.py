"""What a step's job spends: recorded while it runs, and told to stop when its run passes the budget."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg

from ernie_pipeline.recipe.budget import CAP, Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.amounts import cap_words, spent_words
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.spending import REFRESH, SpendingRecord, Total, read_spent, total, unfinished_place
from ernie_pipeline.utils.errors import PipelineError

GO_ON = f"raise {CAP}, or run again: it goes on from what is kept"


class Meter:
    """One job's: `passed` is asked while it runs, and records what it has spent."""

    def __init__(self, record: SpendingRecord, run: Path, budget: Budget):
        self.record, self.run, self.budget = record, run, budget
        self._sentence = ""

    def at_work(self, share: float) -> None:
        """How much of the job runs from now on: 0 none, it waits for a place."""
        self.record.at_work(share)

    def passed(self) -> str:
        """Why the job is to stop, in a sentence; "" while the jobs of its run are together within the cap."""
        if self.record.write_if_due() and self.budget.capped:
            spent = total(read_spent(self.run))
            if self.budget.passed_by(spent.counted, spent.gpu_seconds):
                self._sentence = f"{self.record.stage} passed {_of_cap(self.budget, spent)} and was ended; {GO_ON}"
        return self._sentence


@contextmanager
def metered(
    context: dg.AssetExecutionContext, unfinished: Path | None, gpus: int, *, waits: bool = False
) -> Iterator[Meter]:
    """Record what a job spends from here on, with `gpus` GPUs, 0 on a CPU, for the build that keeps `unfinished`.

    None: for none, so that only the run knows of it. `waits`: it has no place to run yet; `Meter.at_work` tells when it
    has, and what it waits counts for nothing.

    Raises `PipelineError` for a budget that cannot be read, and where the run has none left to begin with.
    """
    budget = Budget.from_environment()
    stage = unfinished.parent.name if unfinished else context.asset_key.to_user_string()
    run = run_folder(context.run.run_id)
    before = total(read_spent(run))
    if budget.passed_by(before.counted, before.gpu_seconds):
        raise PipelineError(f"{stage} was not begun: its run passed {_of_cap(budget, before)}; {GO_ON}")
    places = [*([unfinished_place(unfinished)] if unfinished else []), run]
    record = SpendingRecord(stage, gpus, places, time.monotonic, share=0.0 if waits else 1.0)
    try:
        yield Meter(record, run, budget)
    finally:
        record.write()
        with suppress(Exception):  # Dagster's storage may be away, and the job's own error must come through
            _tell(context, record, total(read_spent(run)), budget)


def run_folder(run_id: str) -> Path:
    """Where the jobs of a run, or of the `refresh` that started it, record what they spend."""
    return Pins(Settings.from_environment().store, os.environ.get(REFRESH) or run_id).folder


def spent_by_run(run_id: str) -> Total:
    """What the jobs of a run have spent so far, together."""
    return total(read_spent(run_folder(run_id)))


def _of_cap(budget: Budget, spent: Total) -> str:
    return f"{CAP} = {budget.text} ({cap_words(budget, spent.counted, spent.gpu_seconds)} spent by this run)"


def waited_words(waited_s: float) -> str:
    """To be said after what was spent; "" for what did not wait."""
    return f", and waited {waited_s:.0f} s for a place to run" if waited_s >= 1 else ""


def _tell(context: dg.AssetExecutionContext, record: SpendingRecord, spent: Total, budget: Budget) -> None:
    job, of_cap = record.now(), f" of {budget.text} at most" if budget.capped else ""
    context.log.info(
        f"{record.stage} spent {spent_words(job.counted, job.gpu_seconds, budget.price)}"
        f"{waited_words(job.waited_s)}; this run so far "
        f"{spent_words(spent.counted, spent.gpu_seconds, budget.price)}{of_cap}"
    )
