"""What generating goes on with when a model that learns is asked again and again, as GRPO asks it at each step.

To merge anew, to run each shape of a step once and to capture it takes seconds, and collecting garbage in between a
third of a second. Kept, a call costs the writing of the merged weights, and the steps.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil

from ernie_pipeline.models.generation.memory_plan import free_bytes
from ernie_pipeline.models.generation.merged import Generator, merge_again

if TYPE_CHECKING:
    from ernie_pipeline.models.generation.decode import Decoder

SHARE = 0.125
"""Of the memory that is free, what merged weights may take that stay beside a training."""


class Again:
    """The merged model and its captured steps. `rows`: how many prompts are answered at a time in every call, so that
    what a call answers does not depend on those before it."""

    def __init__(self, rows: int):
        from ernie_pipeline.models.generation.decode import Decoder  # as `generate` imports it, where it is needed

        self.rows, self.decoder = rows, Decoder()
        self.generator: Generator | None = None
        self.keeps = True
        """Whether what is made is kept; not any more when memory ran out."""

    def generator_of(self, model: Any, make: Callable[[], Generator]) -> Generator:
        """What generates as `model` does now: kept, with its weights written again, or else by `make`."""
        if self.generator is not None:
            merge_again(self.generator.model, model)
            return self.generator
        made = make()
        if self.keeps and made.model is not model and made.model.is_whole and _is_small(made.model):
            self.generator = made
        return made

    @property
    def decoder_kept(self) -> "Decoder | None":
        """What to decode with, if the model is kept."""
        return self.decoder if self.generator is not None else None

    def release(self) -> bool:
        """Keep nothing any more; whether there was anything."""
        had, self.keeps, self.generator = self.generator is not None, False, None
        self.decoder.clear()
        return had


def _is_small(model: Any) -> bool:
    device = model.get_input_embeddings().weight.device
    taken = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    free = free_bytes(device) if device.type == "cuda" else psutil.virtual_memory().available
    return bool(taken <= SHARE * (free + taken))
