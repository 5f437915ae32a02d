"""Which values of the parameters are whose: the parameters lie end to end, cut into one shard for each rank."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

ALIGNED = 4096
"""A parameter is cut at multiples of it, and no part is smaller: bitsandbytes keeps states in 8 bits by blocks of 256
values, and those of parameters of fewer than 4,096 values in 32 bits. So a part's state is that of the whole there."""


class Piece(NamedTuple):
    """The values from `start` up to `stop` of the parameter of that number, in the order of its memory."""

    parameter: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many values."""
        return self.stop - self.start


Shard = list[Piece]


def shards_of(sizes: Sequence[int], number: int) -> list[Shard]:
    """The shards of `number` ranks, one after the other, of parameters with so many values; as equal as `ALIGNED`
    allows."""
    total = sum(sizes)
    goals = iter([*(total * rank // number for rank in range(1, number)), total + ALIGNED])
    shards: list[Shard] = [[] for _ in range(number)]
    rank, goal = 0, next(goals)
    for parameter, (before, end) in enumerate(pairwise(accumulate(sizes, initial=0))):
        start, size = 0, end - before
        while start < size:
            stop = _cut(goal - before, size)
            if stop > start:
                shards[rank].append(Piece(parameter, start, stop))
                start = stop
            if stop < size:
                rank, goal = rank + 1, next(goals)
    return shards


def _cut(wanted: int, size: int) -> int:
    """Where to cut a parameter of `size` values so that about `wanted` are before it; 0 or `size`: it stays whole."""
    cut = max(0, round(wanted / ALIGNED)) * ALIGNED
    return cut if cut == 0 or cut + ALIGNED <= size else size


def runs_of(shard: Shard, most: int) -> Iterator[Shard]:
    """The same values in runs of `most`, the last one of what is left."""
    run: Shard = []
    room = most
    for piece in shard:
        start = piece.start
        while start < piece.stop:
            stop = min(piece.stop, start + room)
            run.append(Piece(piece.parameter, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield run
                run, room = [], most
    if run:
        yield run
