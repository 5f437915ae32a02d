"""The micro-batches of a step, their largest, and how they become smaller."""

from ernie_pipeline.models.micro_batches.size import ONE_ROW, MicroBatchSize

STEPS = [[50, 40, 30, 5], [], [90]]


def test_the_largest_is_that_of_all_micro_batches_within_a_limit() -> None:
    for pack_tokens in (None, 2048, ONE_ROW):
        assert MicroBatchSize(2, pack_tokens).largest(STEPS) == 90  # 50 + 40, 30 + 5, 90 in the order of None
        assert MicroBatchSize(4, pack_tokens).largest(STEPS) == 125
    assert MicroBatchSize(2, None).largest(STEPS, most=89) == 35
    assert MicroBatchSize(4, None).largest([[]]) == 1


def test_rows_become_fewer_by_half() -> None:
    own = MicroBatchSize(8, 2048)
    said = [own.shrink(STEPS, slightly=True) for _ in range(4)]
    assert said == ["4 samples at a time", "2 samples at a time", "one sample at a time", ""]


def test_documents_in_one_row_become_fewer_by_half_or_slightly_until_the_longest_is_alone() -> None:
    own = MicroBatchSize(8, ONE_ROW)
    assert own.shrink(STEPS, slightly=False) == "4 samples at a time"
    assert own.shrink(STEPS, slightly=True) == "at most 117 tokens at a time"  # 15/16 of 125
    assert [len(own.lay_out(share)) for share in STEPS] == [2, 0, 1]
    assert own.shrink(STEPS, slightly=True) == ""  # 90 tokens are one document, and no two have more
