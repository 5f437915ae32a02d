"""Which samples a run sees, in which order, and which of them make up each optimizer step.

All of it is a pure function of the rows' number and of the recipe: a resumed run, a packed one and one on several GPUs
take the same steps over the same samples as an undisturbed one on a single GPU.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from ernie_pipeline.recipe.sections import Training
from ernie_pipeline.training.rows import Row
from ernie_pipeline.utils.errors import PipelineError

Step = list[int]
"""The samples of one optimizer step, by their row numbers in the split."""


def number_of_samples(settings: Training, rows: int) -> int:
    """How many samples a run sees: `max_samples`, or `max_steps` full steps, or `epochs` times the rows."""
    if settings.max_samples:
        return settings.max_samples
    if settings.max_steps:
        return settings.max_steps * settings.samples_per_step
    return math.ceil(settings.epochs * rows)


def sample_order(rows: int, seed: int, samples: int) -> list[int]:
    """Row numbers [samples]: a permutation of all `rows` for each epoch, one epoch after the other, cut at `samples`.

    Raises `PipelineError` when there are no rows.
    """
    if not rows:
        raise PipelineError("the split has no training rows; give it more rows, or lower split.eval_fraction")
    order: list[int] = []
    while len(order) < samples:
        epoch = list(range(rows))
        random.Random(f"{seed}: epoch {len(order) // rows}").shuffle(epoch)
        order += epoch
    return order[:samples]


def plan_steps(rows: int, settings: Training) -> list[Step]:
    """The optimizer steps of a run over so many rows. The last one may have fewer samples."""
    order = sample_order(rows, settings.seed, number_of_samples(settings, rows))
    size = settings.samples_per_step
    return [order[start : start + size] for start in range(0, len(order), size)]


@dataclass(frozen=True)
class Plan:
    """What a run trains on: the recipe's section training, the split's rows, and the optimizer steps over them."""

    settings: Training
    rows: Sequence[Row]
    eval_rows: Sequence[Row]
    lengths: list[int] = field(init=False)
    """Tokens of each training row."""
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", [len(row.ids) for row in self.rows])
        object.__setattr__(self, "steps", plan_steps(len(self.rows), self.settings))

    def tokens(self, step: int) -> int:
        """Of the samples of a step, padding excluded."""
        return sum(self.lengths[sample] for sample in self.steps[step])

    def counted_tokens(self, step: int) -> int:
        """Of the samples of a step, those that the loss counts."""
        return sum(self.rows[sample].counted for sample in self.steps[step])
