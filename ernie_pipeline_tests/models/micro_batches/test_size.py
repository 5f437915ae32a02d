"""The micro-batches of a step, their largest, and how they become smaller."""

import sys

from ernie_pipeline.training.schedule.micro_batch_size import Pieces

SHARES = [[50, 40, 30, 5], [], [90]]


def pieces(batch_size: int, row_tokens: int | None = None, ranks: int = 1, accumulation: int = 1) -> Pieces:
    return Pieces({"batch_size": batch_size, "accumulation": accumulation}, ranks, row_tokens)


def test_a_micro_batch_has_no_more_samples_than_a_rank_has_in_a_step() -> None:
    assert pieces(4, accumulation=2).samples == 4
    assert pieces(4, ranks=2).samples == 2
    assert pieces(4, ranks=3, accumulation=2).samples == 3


def test_the_largest_is_that_of_all_micro_batches_within_a_limit() -> None:
    for row_tokens in (None, 2048, sys.maxsize):
        assert pieces(2, row_tokens).largest(SHARES) == 90  # 50 + 40, 30 + 5, 90 in the order of None
        assert pieces(4, row_tokens).largest(SHARES) == 125
    assert pieces(2).largest(SHARES, most=89) == 35
    assert pieces(4).largest([[]]) == 1


def test_rows_become_fewer_by_half() -> None:
    own = pieces(8, 2048)
    said = [own.less(SHARES, slightly=True) for _ in range(4)]
    assert said == ["4 samples at a time", "2 samples at a time", "one sample at a time", ""]


def test_documents_end_to_end_become_fewer_by_half_or_slightly_until_the_longest_is_alone() -> None:
    own = pieces(8, sys.maxsize)
    assert own.less(SHARES, slightly=False) == "4 samples at a time"
    assert own.less(SHARES, slightly=True) == "at most 117 tokens at a time"  # 15/16 of 125
    assert [len(own.lay_out(share)) for share in SHARES] == [2, 0, 1]
    assert own.less(SHARES, slightly=True) == ""  # 90 tokens are one document, and no two have more
