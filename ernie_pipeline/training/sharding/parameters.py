"""Parameters that each rank steps a shard of: gradients are reduce-scattered, values all-gathered.

Together that is as many bytes as the all-reduce for an optimizer that every rank has whole, and the state is divided by
the number of ranks. torch's ZeroRedundancyOptimizer would not do: it hands out whole parameters, and backend `grouped`
has a single one; it steps after an all-reduce of all gradients and sends each parameter by a broadcast of its own,
of which backend `peft` has thousands. FSDP shards the parameters too, which captured passes read where they are.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.sharding.layout import Piece, Shard, runs_of, shards_of
from ernie_pipeline.training.sharding.state import OptimizerState, own_state, whole_state

BUCKET = 2**25
"""Values (fp32: 128 MiB) of all ranks that are exchanged at once."""


class ShardedParameters:
    """`parameters`, the same on each rank. `own` is what this one's optimizer steps; with one rank, they themselves."""

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks):
        self.parameters, self.ranks = list(parameters), ranks
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.shards = shards_of([shape.numel() for shape in self.shapes], ranks.size)
        self.pieces = self.shards[ranks.rank]
        self.own = self.parameters
        if ranks.size > 1:
            values = _flat(self.parameters)
            self.own = [nn.Parameter(_part(values, piece)) for piece in self.pieces]
        self.used = [False] * len(self.parameters)
        """Which of the parameters have a gradient on some rank, in the step under way."""

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on every rank has all values again after a step of the `optimizer`, which is over `own`."""
        if self.ranks.size > 1:
            optimizer.register_step_post_hook(lambda *_: self._all_gather())

    def reduce_gradients(self) -> None:
        """Give `own` the mean of all ranks' gradients; what has one on no rank keeps none, and is not stepped.

        The gradients of the rest of the parameters are of no use afterwards.
        """
        if self.ranks.size == 1:
            return
        self.used = self.ranks.any(*(parameter.grad is not None for parameter in self.parameters))
        for parameter, used in zip(self.parameters, self.used, strict=True):
            if used and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = _flat([p if p.grad is None else p.grad for p in self.parameters])
        for runs in self._buckets():
            total = self.ranks.reduce_scatter(_rows(gradients, runs))
            _spread(total.div_(self.ranks.size), gradients, runs[self.ranks.rank])
        values = _flat(self.parameters)
        for own, piece in zip(self.own, self.pieces, strict=True):
            part = _part(values, piece)
            if own.data_ptr() != part.data_ptr():  # accelerate has moved what several processes train
                own.data = part
            own.grad = _part(gradients, piece) if self.used[piece.parameter] else None

    def drop_gradients(self) -> None:
        """Let no parameter be stepped, on no rank."""
        for parameter in (*self.parameters, *self.own):
            parameter.grad = None
        self.used = [False] * len(self.parameters)

    def clip_gradients(self, most: float) -> torch.Tensor:
        """Scale them so that their norm, over all ranks' shards, is at most `most`; the norm before."""
        if self.ranks.size == 1:
            return clip_grad_norm_(self.own, most)
        squared = get_total_norm([own.grad for own in self.own if own.grad is not None]).square()
        norm = self.ranks.all_reduce(squared.to(self.ranks.device)).sqrt()
        clip_grads_with_norm_(self.own, most, norm)
        return norm

    def whole_state(self, optimizer: torch.optim.Optimizer) -> OptimizerState | None:
        """That of one `optimizer` over all parameters, as checkpoints have it, see `state.whole_state`."""
        state = optimizer.state_dict()
        return state if self.ranks.size == 1 else whole_state(state, self.pieces, self.shapes, self.ranks)

    def own_state(self, whole: OptimizerState) -> OptimizerState:
        """What an optimizer over `own` loads to go on from a `whole_state`, of any number of ranks."""
        return whole if self.ranks.size == 1 else own_state(whole, self.pieces, self.shapes)

    def _all_gather(self) -> None:
        values = _flat(self.parameters)
        for runs in self._buckets():
            sent = _rows(values, [runs[self.ranks.rank]], _width(runs))
            for run, row in zip(runs, self.ranks.all_gather(sent), strict=True):
                if run is not runs[self.ranks.rank]:
                    _spread(row, values, run)
        for own in self.own:
            own.grad = None  # it would keep the gradient of its whole parameter in memory

    def _buckets(self) -> Iterator[Sequence[Shard]]:
        """A run of values for each rank, as long as there are any; of the parameters that are used."""
        used = [[piece for piece in shard if self.used[piece.parameter]] for shard in self.shards]
        most = max(1, BUCKET // self.ranks.size)
        return zip_longest(*(runs_of(shard, most) for shard in used), fillvalue=[])


def _flat(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Views of one dimension, without autograd."""
    return [tensor.detach().view(-1) for tensor in tensors]


def _part(flat: Sequence[torch.Tensor], piece: Piece) -> torch.Tensor:
    return flat[piece.parameter][piece.start : piece.stop]


def _width(runs: Sequence[Shard]) -> int:
    return max(sum(piece.size for piece in run) for run in runs)


def _rows(flat: Sequence[torch.Tensor], runs: Sequence[Shard], width: int = 0) -> torch.Tensor:
    """The runs' values as rows [runs, width]; what fills a shorter one up means nothing."""
    rows = flat[0].new_zeros(len(runs), width or _width(runs))
    for row, run in zip(rows, runs, strict=True):
        if run:
            torch.cat([_part(flat, piece) for piece in run], out=row[: sum(piece.size for piece in run)])
    return rows


def _spread(row: torch.Tensor, flat: Sequence[torch.Tensor], run: Shard) -> None:
    """Put the values of a row to where they are from."""
    for piece, part in zip(run, torch.split(row[: sum(p.size for p in run)], [p.size for p in run]), strict=True):
        _part(flat, piece).copy_(part)
