"""An optimizer's state, of whole parameters as checkpoints have it, and of the pieces of them that a rank steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.sharding.layout import Piece, Shard

OptimizerState = dict[str, Any]
"""As `Optimizer.state_dict` gives it: `state` by the parameters' numbers, and `param_groups`."""

Path = tuple[str, ...]
Leaves = dict[Path, Any]
"""The state of one parameter by the names on the way to each value: bitsandbytes has dictionaries in dictionaries."""

BLOCK = 256
"""Values that share a scale (`absmax`) in bitsandbytes' 8-bit states."""


class Sharded(NamedTuple):
    """In the place of a tensor that has an entry for each `per` values of its parameter."""

    dtype: torch.dtype
    per: int

    def part(self, entries: torch.Tensor, piece: Piece) -> torch.Tensor:
        """Those of a piece, among those of its whole parameter."""
        return entries.view(-1)[piece.start // self.per : -(-piece.stop // self.per)]


def whole_state(
    own: OptimizerState, pieces: Shard, shapes: Sequence[torch.Size], ranks: Ranks
) -> OptimizerState | None:
    """Of an optimizer over parameters of these `shapes`, from what every rank has `own`, which is of `pieces`.

    On the first rank, on the CPU; None on the others. All have to ask for it, and no GPU needs memory for it.
    """
    mine = {pieces[number]: leaves_of(each) for number, each in sorted(own["state"].items())}
    described = {piece: _described(leaves, piece.size) for piece, leaves in mine.items()}
    kept_by = ranks.gather_first(described)
    if kept_by is None:
        for piece, leaves in described.items():
            for path, kind in leaves.items():
                if isinstance(kind, Sharded):
                    ranks.send_first(mine[piece][path])
        return None
    joined: dict[int, Leaves] = {}
    for rank, kept in enumerate(kept_by):
        for piece, leaves in kept.items():
            whole = joined.setdefault(piece.parameter, {})
            for path, kind in leaves.items():
                if not isinstance(kind, Sharded):
                    whole[path] = kind
                    continue
                if path not in whole:
                    whole[path] = _empty(kind, shapes[piece.parameter])
                part = kind.part(whole[path], piece)
                if rank == ranks.rank:
                    part.copy_(mine[piece][path])
                else:
                    ranks.receive(part, rank)
    return _numbered({number: state_of(leaves) for number, leaves in joined.items()}, own, len(shapes))


def own_state(whole: OptimizerState, pieces: Shard, shapes: Sequence[torch.Size]) -> OptimizerState:
    """Of an optimizer over `pieces` of parameters of these `shapes`, whose `whole` state this is; copies."""
    states = {}
    for number, piece in enumerate(pieces):
        leaves = leaves_of(whole["state"].get(piece.parameter, {}))
        for path, value in leaves.items():
            if kind := _sharded(path, value, shapes[piece.parameter].numel()):
                leaves[path] = kind.part(value, piece).clone()
        if leaves:  # otherwise it was never stepped
            states[number] = state_of(leaves)
    return _numbered(states, whole, len(pieces))


def leaves_of(state: Mapping[str, Any], path: Path = ()) -> Leaves:
    """What there is in `state` and the dictionaries in it."""
    leaves: Leaves = {}
    for name, value in state.items():
        leaves |= leaves_of(value, (*path, name)) if isinstance(value, dict) else {(*path, name): value}
    return leaves


def state_of(leaves: Leaves) -> dict[str, Any]:
    """What `leaves_of` was given."""
    state: dict[str, Any] = {}
    for path, value in leaves.items():
        inner = state
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return state


def _described(leaves: Leaves, size: int) -> Leaves:
    """What a message says of them, with `Sharded` in the place of what is sent by itself."""
    described: Leaves = {}
    for path, value in leaves.items():
        whole = value.cpu() if isinstance(value, torch.Tensor) and _is_whole(path, value) else value
        described[path] = _sharded(path, whole, size) or whole
    return described


def _is_whole(path: Path, value: torch.Tensor) -> bool:
    """Whether each piece has it as it is: the number of steps, and the table of what 8 bits stand for."""
    return value.dim() == 0 or path[-1].startswith("qmap")


def _sharded(path: Path, value: object, size: int) -> Sharded | None:
    """How a value of the state of `size` values is divided among pieces of them; None: not at all."""
    if not isinstance(value, torch.Tensor) or _is_whole(path, value):
        return None
    for per in (1, BLOCK):
        if value.numel() == -(-size // per):
            return Sharded(value.dtype, per)
    raise ValueError(f"{'.'.join(path)} of a parameter of {size} values has {value.numel()}: it cannot be sharded")


def _empty(kind: Sharded, shape: torch.Size) -> torch.Tensor:
    entries = torch.empty(-(-shape.numel() // kind.per), dtype=kind.dtype)
    return entries.view(shape) if kind.per == 1 else entries


def _numbered(states: dict[int, dict[str, Any]], like: OptimizerState, number: int) -> OptimizerState:
    """With the settings of another state, of as many parameters."""
    groups = [{**group, "params": [*range(number)]} for group in like["param_groups"]]
    return {"state": states, "param_groups": groups}
