"""Which samples a run sees, in which order, and which of them make up each optimizer step.

All of it is a pure function of the rows' number and of the recipe: a resumed run, a packed one and one on several GPUs
take the same steps over the same samples as an undisturbed one on a single GPU.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ernie_pipeline.training.rows import Row
from ernie_pipeline.utils.errors import PipelineError

Step = list[int]
"""The samples of one optimizer step, by their row numbers in the split."""


def number_of_samples(settings: dict[str, Any], rows: int) -> int:
    """How many samples a run sees: `max_samples`, or `max_steps` full steps, or `epochs` times the rows."""
    if settings["max_samples"]:
        return int(settings["max_samples"])
    if settings["max_steps"]:
        return int(settings["max_steps"]) * samples_of_a_step(settings)
    return math.ceil(float(settings["epochs"]) * rows)


def samples_of_a_step(settings: dict[str, Any]) -> int:
    """Packed or not, on one GPU or several."""
    return int(settings["batch_size"]) * int(settings["accumulation"])


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


def plan_steps(lengths: Sequence[int], settings: dict[str, Any]) -> list[Step]:
    """The optimizer steps of a run over rows of `lengths` tokens; `settings` is the recipe's section training.

    The last one may have fewer samples. Raises `PipelineError` for a row that does not fit into `pack_tokens`.
    """
    longest = max(range(len(lengths)), key=lambda i: lengths[i], default=0)
    if settings["packing"] and lengths and lengths[longest] > settings["pack_tokens"]:
        raise PipelineError(
            f"training row {longest} has {lengths[longest]} tokens and does not fit into training.pack_tokens = "
            f"{settings['pack_tokens']}; raise that, or lower split.max_tokens"
        )
    order = sample_order(len(lengths), settings["seed"], number_of_samples(settings, len(lengths)))
    size = samples_of_a_step(settings)
    return [order[start : start + size] for start in range(0, len(order), size)]


@dataclass(frozen=True)
class Plan:
    """What a run trains on: the recipe's section training, the split's rows, and the optimizer steps over them."""

    settings: dict[str, Any]
    rows: Sequence[Row]
    eval_rows: Sequence[Row]
    lengths: list[int] = field(init=False)
    """Tokens of each training row."""
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", [len(row.ids) for row in self.rows])
        object.__setattr__(self, "steps", plan_steps(self.lengths, self.settings))

    @property
    def row_tokens(self) -> int | None:
        """The tokens of a packed row at most; None: each sample has a row of its own."""
        return int(self.settings["pack_tokens"]) if self.settings["packing"] else None
