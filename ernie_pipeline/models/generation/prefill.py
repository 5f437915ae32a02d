"""Prompts on their way to a slot: their keys and values are computed ahead, many prompts' in one pass.

A slot is free at any time, and one prompt's pass takes as long as several steps of all rows, nearly all of it launches
of kernels. So a pass takes as many prompts as `max_tokens` allows, whatever the number of slots that are free; the
others wait, prefilled, and what a free slot costs is a copy. No token is computed twice: equal prompts (the samples of
one) are one row of a pass, and what all prompts begin with is computed once.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from ernie_pipeline.models.memory import to_device

LEAST_SHARED = 8
"""Tokens that all prompts must begin with for them to be computed apart: a pass of its own takes its launches."""

Prompt = list[int]


class Prefilled(NamedTuple):
    """Keys and values of each layer: [prompts, heads, tokens, width]; a shorter prompt's are followed by any."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]


class Waiting:
    """The prompts that wait for a slot, longest first, so that long ones are not what the end waits for, and memory
    that is too little shows at once."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], max_tokens: int):
        self.model, self.prompts, self.max_tokens = model, [list(prompt) for prompt in prompts], max_tokens
        self._groups = deque(_equal_ones(self.prompts))
        self._left = len(prompts)
        self._ready: deque[tuple[int, int]] = deque()
        self._prefilled = Prefilled([], [])
        self._shared = _shared(self.prompts, len(self._groups))
        self._of_shared: Prefilled | None = None

    def __len__(self) -> int:
        return self._left

    def take(self, number: int) -> tuple[list[tuple[int, int]], Prefilled]:
        """The next prompts, at most `number` and at least one: of each its index and its row in what is prefilled."""
        if not self._ready:
            self._prefill()
        taken = [self._ready.popleft() for _ in range(min(number, len(self._ready)))]
        self._left -= len(taken)
        return taken, self._prefilled

    def _prefill(self) -> None:
        self._prefilled = Prefilled([], [])  # let go of it before the next is made
        width = len(self.prompts[self._groups[0][0]]) - 1 - self._shared
        number = min(len(self._groups), max(1, self.max_tokens // max(width, 1)))
        groups = [self._groups.popleft() for _ in range(number)]
        self._ready.extend((index, row) for row, group in enumerate(groups) for index in group)
        if self._shared and self._of_shared is None:
            first = self.prompts[groups[0][0]][: self._shared]
            self._of_shared = _pass(self.model, [first], None)
        own = [self.prompts[group[0]][self._shared : -1] for group in groups]
        self._prefilled = _pass(self.model, own, self._of_shared)


def _equal_ones(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Which prompts are equal, by their indices; the longest first."""
    groups: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), prompts[i])):
        if groups and prompts[groups[-1][0]] == prompts[index]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _shared(prompts: Sequence[Prompt], different: int) -> int:
    """How many tokens all prompts begin with, and have at least one more of; 0 if it does not pay."""
    if different < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in the order of words in a dictionary: what these share all share
    most = min(map(len, prompts)) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return shared if shared >= LEAST_SHARED else 0


def _pass(model: Any, tokens: Sequence[Prompt], before: Prefilled | None) -> Prefilled:
    """Keys and values of `tokens`, and of what stands `before` all of them. Padding is on the right, seen by none of
    them."""
    cache, start, width = DynamicCache(), 0, max(map(len, tokens))
    if before is not None:
        start = before.keys[0].shape[2]
        for layer, (keys, values) in enumerate(zip(before.keys, before.values, strict=True)):
            cache.update(keys.expand(len(tokens), -1, -1, -1), values.expand(len(tokens), -1, -1, -1), layer)
    if width:
        device = model.get_input_embeddings().weight.device
        inputs = to_device([[*row, *[0] * (width - len(row))] for row in tokens], device)
        model(
            input_ids=inputs,
            position_ids=torch.arange(start, start + width, device=device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return Prefilled([layer.keys for layer in cache.layers], [layer.values for layer in cache.layers])
