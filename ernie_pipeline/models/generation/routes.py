"""Which experts a decode chooses, told with its answers: what a learner replays (`models/routing.py`)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.memory import to_device
from ernie_pipeline.models.routing import UNKNOWN, routers


class Whole(NamedTuple):
    """The answer in a row is whole: that of this prompt, which has so many tokens, made in so many steps."""

    row: int
    prompt: int
    prompt_tokens: int
    steps: int


class Routes:
    """For each row of a decode the experts of its answer's steps so far: [rows, most steps, layers, k], int16.

    A step's are those of its input token: the prompt's last one at first, then the answer's but its last. What is
    prefilled is not recorded. `found`: of each prompt whose answer is whole, by its index [tokens of prompt and answer,
    layers, k], `UNKNOWN` where nothing was recorded.
    """

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device):
        self.chosen = torch.full(shape, UNKNOWN, dtype=torch.int16, device=device)
        self.found: dict[int, torch.Tensor] = {}

    @classmethod
    def of(cls, model: Any, rows: int, most: int) -> "Routes":
        """For answers of at most `most` tokens by `model`, which has routers."""
        own: list[Any] = routers(model)
        # one more than an answer may have: there a row writes that has finished, see `Slots`
        return cls((rows, most + 1, len(own), own[0].top_k), own[0].weight.device)

    def record(self, steps: torch.Tensor, chosen: Sequence[torch.Tensor]) -> None:
        """Of the first rows, which are at `steps` [rows], the experts [rows, k] of each layer."""
        rows, places = torch.arange(len(steps), device=steps.device), steps.clone()
        self.chosen[rows, places] = torch.stack(list(chosen), dim=1).to(torch.int16)

    def take(self, whole: Sequence[Whole]) -> None:
        """Keep what these answers were made by. Waits for the device once."""
        longest = max(each.steps for each in whole)
        chosen = self.chosen[:, :longest][to_device([each.row for each in whole], self.chosen.device)].cpu()
        for each, own in zip(whole, chosen, strict=True):
            found = torch.full((each.prompt_tokens + each.steps, *own.shape[1:]), UNKNOWN, dtype=torch.int16)
            found[each.prompt_tokens - 1 : -1] = own[: each.steps]
            self.found[each.prompt] = found

    def move_to_front(self, index: torch.Tensor) -> None:
        """See `Slots.move_to_front`."""
        self.chosen[: len(index)] = self.chosen[index]
