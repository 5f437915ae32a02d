"""Which prompt is in which slot, and when that is looked at.

A row that finishes is seen at the next look, and its slot taken by the next prompt at once. A look costs the device
the time in which it waits for the host, a step not looked at one row for each that has finished in it: with answers of
n tokens and a look as long as c steps of all rows, looks are dearest every sqrt(2 n c) steps. On an H200 with the 21B
model c is about 0.06 and n some hundreds, which gives 5 to 8 (`benchmarks/evaluation/schedule.py` draws the curve).

When no prompt waits any longer, rows that go on move together and the batch is halved as they become fewer: captured
steps have few shapes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ernie_pipeline.models.backend import Progress
from ernie_pipeline.models.generation.memory_plan import LENGTH_STEP
from ernie_pipeline.models.generation.prefill import Waiting
from ernie_pipeline.models.generation.routes import Whole
from ernie_pipeline.models.generation.slots import Ready, Slots
from ernie_pipeline.models.memory import round_up

OnFinished = Callable[[int, list[int], list[float]], None]
"""Hears a prompt's index, and its answer's tokens and their log-probabilities."""

Answer = tuple[int, list[int], list[float]]


class DecodeSettings(NamedTuple):
    """What decides about speed and memory, and nothing else."""

    check_every: int = 8
    """Steps between two looks at which rows have finished."""
    length_step: int = LENGTH_STEP
    """Tokens by which the part of the cache that is read grows."""
    least_rows: int = 8
    """A batch is not halved to fewer: its steps would take as long."""
    prefill_tokens: int = 8_192
    """Tokens of prompts that go through the model together, padding included."""


ON_A_CPU = DecodeSettings(check_every=1, length_step=16, least_rows=1)
"""There a look waits for nothing, and a step takes as long as it has rows and tokens to read."""


def settings_for(cuda: bool) -> DecodeSettings:
    """Those of the device: a CUDA device, or a CPU."""
    return DecodeSettings() if cuda else ON_A_CPU


class Work:
    """What a decode has done so far, counted."""

    def __init__(self) -> None:
        self.steps = 0
        self.row_steps = 0
        """Of all rows of each step, those that had finished included."""
        self.refills = 0


class Asked(NamedTuple):
    """The prompts (token ids), and of each its seed, if it is not greedy, and the most tokens of its answer."""

    prompts: Sequence[Sequence[int]]
    seeds: Sequence[int]
    budgets: Sequence[int]


class Schedule:
    """A decode under way: `owners` [rows] has the index of each slot's prompt, or None, and `began` [rows] the step at
    which it took its slot."""

    def __init__(self, slots: Slots, waiting: Waiting, asked: Asked, settings: DecodeSettings, work: Work):
        self.slots, self.waiting, self.asked, self.settings, self.work = slots, waiting, asked, settings, work
        rows = _halved(slots.rows, len(waiting), settings.least_rows)
        self.owners: list[int | None] = [None] * rows
        self.began = [0] * rows

    def run(self, step: Callable[[int, int], None], hear: OnFinished, progress: Progress) -> None:
        """Answer all that wait. `step` takes the rows that take part and how many columns of the cache they read.

        Answers are told while the device is busy with the next steps.
        """
        total, done, finished = len(self.waiting), 0, list[Answer]()
        self._refill()
        while self.occupied():
            try:
                self._advance(step)
            finally:  # memory may run out in a step: what was whole before is not lost
                _tell(finished, hear)
            finished = self._take_finished()
            if finished:
                done += len(finished)
                progress(done, total)
                self._refill()
                self._halve()
        _tell(finished, hear)

    def occupied(self) -> list[tuple[int, int]]:
        """The slots that have a prompt, and its index."""
        return [(row, owner) for row, owner in enumerate(self.owners) if owner is not None]

    def _advance(self, step: Callable[[int, int], None]) -> None:
        """Steps up to the next look: no more than the longest budget needs."""
        occupied, now, rows = self.occupied(), self.work.steps, len(self.owners)
        left = max(self.asked.budgets[owner] + self.began[row] for row, owner in occupied) - now
        reads = max(len(self.asked.prompts[owner]) - self.began[row] for row, owner in occupied) + now
        number = min(left, self.settings.check_every)
        for ahead in range(number):
            step(rows, min(round_up(reads + ahead, self.settings.length_step), self.slots.capacity))
        self.work.steps += number
        self.work.row_steps += number * rows

    def _take_finished(self) -> list[Answer]:
        lengths = self.slots.lengths_of_finished(len(self.owners))
        found = [(row, owner) for row, owner in self.occupied() if lengths[row] >= 0]
        if not found:
            return []
        rows = [row for row, _ in found]
        answers = self.slots.answers_of(rows, [lengths[row] for row in rows])
        if self.slots.routes is not None:
            prompts = self.asked.prompts
            self.slots.routes.take([Whole(row, owner, len(prompts[owner]), lengths[row]) for row, owner in found])
        for row in rows:
            self.owners[row] = None
        return [(owner, *answer) for (_, owner), answer in zip(found, answers, strict=True)]

    def _refill(self) -> None:
        free = [row for row, owner in enumerate(self.owners) if owner is None]
        while free and len(self.waiting):
            taken, prefilled = self.waiting.take(len(free))
            rows, free = free[: len(taken)], free[len(taken) :]
            self.slots.fill(rows, [self._ready(*each) for each in taken], prefilled)
            for row, (index, _) in zip(rows, taken, strict=True):
                self.owners[row], self.began[row] = index, self.work.steps
            self.work.refills += 1
        self.slots.leave_empty(free)

    def _ready(self, index: int, source: int) -> Ready:
        prompt = self.asked.prompts[index]
        seed = self.asked.seeds[index] if self.asked.seeds else 0
        return Ready(source, len(prompt), prompt[-1], seed, self.asked.budgets[index])

    def _halve(self) -> None:
        """Fewer rows, where so many are empty: those that go on move to the front."""
        occupied = [row for row, _ in self.occupied()]
        rows = _halved(len(self.owners), len(occupied), self.settings.least_rows)
        if not occupied or rows == len(self.owners):
            return
        empty = [row for row, owner in enumerate(self.owners) if owner is None]
        staying = sorted(occupied + empty[: rows - len(occupied)])
        self.slots.move_to_front(staying)
        self.owners, self.began = [self.owners[row] for row in staying], [self.began[row] for row in staying]


def _halved(rows: int, live: int, least_rows: int) -> int:
    """`rows` halved, rounded up, as long as it holds the live ones and `least_rows`."""
    while (half := -(-rows // 2)) >= max(live, least_rows) and half < rows:
        rows = half
    return rows


def _tell(answers: Sequence[Answer], hear: OnFinished) -> None:
    for answer in answers:
        hear(*answer)
