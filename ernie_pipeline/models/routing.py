"""Which experts a sampler chose, replayed by the model that learns.

Of one token's router two experts may be nearly tied; another order of summing, or 16 bits in other places, then sends
it elsewhere, and the learner's log-probability is one of another path through the model than the sampler took. Ma et
al. 2025, "Stabilizing MoE Reinforcement Learning by Aligning Training and Inference Routers" (arXiv:2510.11370): some
10 % of the choices differ, training collapsed, and stayed stable where it replayed the sampler's choices. The weights
of the experts are the learner's own, so that its gradient goes on to the router's input.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

UNKNOWN = -1
"""In place of an expert's number: the choice is the learner's own."""


class Replay:
    """The experts `chosen` for the tokens of some documents: of each [tokens, layers, k], int, the same k of a token in
    any order; `UNKNOWN` where nothing was recorded, such as for the last token, which only was drawn.

    `forced`: the learner takes them. Either way it is counted where its own choice is another.
    """

    def __init__(self, chosen: Sequence[torch.Tensor], *, forced: bool = True):
        self.chosen, self.forced = chosen, forced
        self._decisions: list[torch.Tensor] = []
        self._elsewhere: list[torch.Tensor] = []

    def count(self, known: torch.Tensor, differs: torch.Tensor) -> None:
        """Hears of one layer's tokens: bool [tokens]. Waits for no device."""
        self._decisions.append(known.sum())
        self._elsewhere.append((known & differs).sum())

    @property
    def decisions(self) -> int:
        """Tokens times layers whose choice was known, in passes without a gradient."""
        return sum(int(each) for each in self._decisions)

    @property
    def elsewhere(self) -> int:
        """Those of them for which the learner's own choice has another expert in it."""
        return sum(int(each) for each in self._elsewhere)


def routers(model: nn.Module) -> list[nn.Module]:
    """ERNIE's routers in the layers' order; none in a model of another kind."""
    return [module for module in model.modules() if hasattr(module, "moe_statics") and hasattr(module, "norm_min")]


@contextmanager
def replaying(model: nn.Module, replay: Replay | None, rows: Sequence[Sequence[int]], width: int) -> Iterator[None]:
    """The model with what `replay` says of the documents in `rows` (their positions there), each row of `width` tokens;
    as it is where there is no replay."""
    if replay is None:
        yield
        return
    found = routers(model)
    given = _laid_out([[replay.chosen[i] for i in row] for row in rows], width)
    device = next(model.parameters()).device
    hooks = [
        router.register_forward_hook(partial(_replay, replay, each.to(device)))
        for router, each in zip(found, given.unbind(1), strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def recording(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Fills the list, pass by pass and layer by layer, with the experts [tokens, k] that are chosen meanwhile."""
    chosen: list[torch.Tensor] = []
    hooks = [router.register_forward_hook(lambda _, __, output: chosen.append(output[2])) for router in routers(model)]
    try:
        yield chosen
    finally:
        for hook in hooks:
            hook.remove()


def _laid_out(rows: Sequence[Sequence[torch.Tensor]], width: int) -> torch.Tensor:
    """[rows x width, layers, k], int64: what is padding is `UNKNOWN`."""
    first = next(each for row in rows for each in row)
    out = torch.full((len(rows), width, *first.shape[1:]), UNKNOWN)
    for number, row in enumerate(rows):
        values = torch.cat(list(row))
        out[number, : len(values)] = values
    return out.flatten(0, 1)


def _replay(replay: Replay, given: torch.Tensor, router: Any, args: Any, output: Any) -> Any:
    """A router's output (logits, weights, experts) with the experts `given` [tokens, k], weighted as it does."""
    logits, weights, own = output
    known = (given >= 0).all(dim=-1)
    if not torch.is_grad_enabled():
        replay.count(known, (own.sort(dim=-1).values != given.sort(dim=-1).values).any(dim=-1))
    if not replay.forced:
        return None
    chosen = torch.where(known[:, None], given, own)
    shares = logits.softmax(dim=-1, dtype=torch.float).gather(-1, chosen)
    shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=router.norm_min)
    return logits, shares.to(weights.dtype), chosen
