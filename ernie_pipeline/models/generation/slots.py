"""The rows of a decode on the device: each a slot that one prompt's answer is made in, and then the next one's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.generation.memory_plan import cache_shape
from ernie_pipeline.models.generation.prefill import Prefilled
from ernie_pipeline.models.generation.routes import Routes
from ernie_pipeline.models.generation.sampler import Drawn, Sampler
from ernie_pipeline.models.memory import to_device


class Ready(NamedTuple):
    """A prompt that takes a slot: where its keys and values are prefilled, and what its answer follows from."""

    source: int
    """Its row in `Prefilled`."""
    length: int
    """Its tokens, the last one included, which is not prefilled."""
    last_token: int
    seed: int
    budget: int
    """The most tokens that its answer may have."""


class Slots:
    """For each row its input token, the cache's column where that one's key and value go, and its answer so far.

    `tokens`, `positions`, `seeds`, `steps` (tokens of the answer so far) and `budgets` are [rows], int64, `finished`
    [rows] bool; `answers` and `logprobs` [rows, max_new_tokens + 1]; `keys` and `values` of each layer [rows, heads,
    capacity, width]. Their addresses never change: captured steps read and write them. `routes`: the experts of
    each step, where they are recorded.
    """

    def __init__(
        self,
        model: Any,
        rows: int,
        capacity: int,
        max_new_tokens: int,
        end_tokens: Sequence[int],
        sampler: Sampler,
    ):
        embeddings = model.get_input_embeddings().weight
        device, (layers, heads, width) = embeddings.device, cache_shape(model.config)
        self.rows, self.capacity, self.device, self.sampler = rows, capacity, device, sampler
        self.ends_at = tuple(end_tokens)
        self.end_tokens = torch.tensor(list(end_tokens), dtype=torch.long, device=device)
        of_rows = torch.zeros(5, rows, dtype=torch.long, device=device)
        self.tokens, self.positions, self.seeds, self.steps, self.budgets = of_rows
        self._of_rows = of_rows
        self.finished = torch.ones(rows, dtype=torch.bool, device=device)
        # one column more than an answer may have: there a row writes that has finished and goes on unseen
        self.answers = torch.zeros(rows, max_new_tokens + 1, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, max_new_tokens + 1, device=device)
        self.columns = torch.arange(capacity, device=device)
        self.routes: Routes | None = None
        self._routes: Routes | None = None
        # zeros, not empty: what a mask hides still takes part, times zero, and must not be infinite
        self.keys, self.values = (
            [torch.zeros(rows, heads, capacity, width, dtype=embeddings.dtype, device=device) for _ in range(layers)]
            for _ in range(2)
        )

    def serves(self, rows: int, capacity: int, max_new_tokens: int, end_tokens: Sequence[int]) -> bool:
        """Whether another decode, of so many rows and no more tokens than these, can have its answers made here."""
        enough = self.capacity >= capacity and self.answers.shape[1] > max_new_tokens
        return self.rows == rows and enough and self.ends_at == tuple(end_tokens)

    def empty(self, sampler: Sampler) -> None:
        """Begin anew, with tokens drawn by `sampler`."""
        self.sampler = sampler
        self.finished.fill_(True)
        self._of_rows.zero_()

    def record_routes(self, model: Any, found: dict[int, torch.Tensor] | None) -> None:
        """From now on the experts of each step are recorded, and told of in `found`; None: they are not."""
        if found is None:
            self.routes = None
            return
        self._routes = self._routes or Routes.of(model, self.rows, self.answers.shape[1] - 1)
        self._routes.found, self.routes = found, self._routes

    def fill(self, slots: Sequence[int], prompts: Sequence[Ready], prefilled: Prefilled) -> None:
        """Begin `prompts` in `slots`: the last token of each is its first step's input, all before it is copied."""
        columns = [(each.last_token, each.length - 1, each.seed, 0, each.budget) for each in prompts]
        width = max(each.length for each in prompts) - 1
        numbers = [list(slots), [each.source for each in prompts], *zip(*columns, strict=True)]
        index, sources, *of_rows = to_device(numbers, self.device)
        self._of_rows.index_copy_(1, index, torch.stack(of_rows))
        self.finished.index_fill_(0, index, False)
        if width == 0:
            return
        for cache, made in ((self.keys, prefilled.keys), (self.values, prefilled.values)):
            for layer, new in zip(cache, made, strict=True):
                layer[:, :, :width].index_copy_(0, index, new[:, :, :width].index_select(0, sources))

    def record(self, rows: int, drawn: Drawn) -> None:
        """Take the next tokens of the first `rows` rows. One that has finished stays where it is: no step depends on
        how many have, and its answer, already whole, is not touched."""
        finished, steps, following = self.finished[:rows], self.steps[:rows], drawn.tokens
        self.answers[:rows].scatter_(1, steps[:, None], following[:, None])
        self.logprobs[:rows].scatter_(1, steps[:, None], drawn.logprobs[:, None])
        going = ~finished
        steps += going
        self.positions[:rows].add_(going)
        self.tokens[:rows].copy_(following)
        finished |= (following[:, None] == self.end_tokens).any(dim=1) | (steps >= self.budgets[:rows])

    def lengths_of_finished(self, rows: int) -> list[int]:
        """For each of the first `rows` rows the tokens of its answer, -1 if it goes on. Waits for the device."""
        return torch.where(self.finished[:rows], self.steps[:rows], -1).tolist()

    def answers_of(self, rows: Sequence[int], lengths: Sequence[int]) -> list[tuple[list[int], list[float]]]:
        """The answers in `rows`, of so many tokens each: tokens and their log-probabilities."""
        index, longest = to_device(rows, self.device), max(lengths)
        tokens, logprobs = (every[:, :longest][index] for every in (self.answers, self.logprobs))
        both = torch.cat([tokens, logprobs.view(torch.int32).long()], dim=1).cpu()  # the device is waited for once
        tokens, bits = both[:, :longest], both[:, longest:]
        found = tokens.tolist(), bits.int().view(torch.float32).tolist()
        return [(found[0][i][:length], found[1][i][:length]) for i, length in enumerate(lengths)]

    def leave_empty(self, rows: Sequence[int]) -> None:
        """Nothing follows in these rows, whose answers are taken: what they go on to read is as little as can be."""
        if rows:
            self.positions.index_fill_(0, to_device(rows, self.device), 0)

    def move_to_front(self, chosen: Sequence[int]) -> None:
        """Move the rows `chosen` (ascending) to the front. Of their answers nothing is lost."""
        number, index = len(chosen), to_device(chosen, self.device)
        self._of_rows[:, :number] = self._of_rows[:, index]
        if self.routes is not None:
            self.routes.move_to_front(index)
        for tensor in (self.finished, self.answers, self.logprobs, *self.keys, *self.values):
            tensor[:number] = tensor[index]
