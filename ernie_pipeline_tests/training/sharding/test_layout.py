"""Parameters cut into shards: every value is some rank's, once, and no part is kept in other bits than the whole."""

import random
from itertools import pairwise

import pytest

from ernie_pipeline.training.sharding.layout import ALIGNED, Piece, runs_of, shards_of

SIZES = [
    [355_090_432],  # ERNIE-4.5-21B's adapter in backend `grouped`
    [100, 5000, 3, 4 * ALIGNED + 7, ALIGNED, 2],
    [7],
    [],
    [random.Random(seed).choice([1, 40_960, 24_576, 300, 4095, 100_001]) for seed in range(60)],
]


@pytest.mark.parametrize("sizes", SIZES, ids=["one", "mixed", "tiny", "none", "many"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_each_value_is_in_one_shard_in_order_and_parts_are_aligned(sizes: list[int], ranks: int) -> None:
    shards = shards_of(sizes, ranks)
    assert len(shards) == ranks
    pieces = [piece for shard in shards for piece in shard]
    assert pieces == sorted(pieces)
    for number, size in enumerate(sizes):
        own = [piece for piece in pieces if piece.parameter == number]
        assert (own[0].start, own[-1].stop) == (0, size)
        assert all(before.stop == after.start for before, after in pairwise(own))
        if len(own) > 1:
            assert all(piece.start % ALIGNED == 0 and piece.size >= ALIGNED for piece in own)
    for shard in shards:
        assert abs(sum(piece.size for piece in shard) - sum(sizes) / ranks) <= 2 * ALIGNED


def test_runs_have_the_shard_s_values_in_order_so_many_each() -> None:
    shard = [Piece(0, 8192, 8202), Piece(1, 0, 3), Piece(2, 0, 12)]
    runs = [*runs_of(shard, 10)]
    assert runs == [[Piece(0, 8192, 8202)], [Piece(1, 0, 3), Piece(2, 0, 7)], [Piece(2, 7, 12)]]
    assert [*runs_of([], 10)] == []
    assert [*runs_of(shard, 25)] == [shard]
