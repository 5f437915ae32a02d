"""How a step's samples are shared, divided, packed and concatenated."""

import random
import sys

import pytest
import torch

from ernie_pipeline.models.documents import NOT_COUNTED, Document
from ernie_pipeline.models.memory import round_up
from ernie_pipeline.models.micro_batches.layout import (
    collate,
    collate_weights,
    computed_tokens,
    concatenate,
    lay_out,
)
from ernie_pipeline.models.micro_batches.packing import best_fit_decreasing, pack


def test_packs_are_full_whole_and_within_the_capacity() -> None:
    lengths = [random.Random(i).randint(30, 300) for i in range(2000)]
    packs = best_fit_decreasing(lengths, 2048)
    assert sorted(i for row in packs for i in row) == list(range(2000))
    assert max(sum(lengths[i] for i in row) for row in packs) <= 2048
    assert len(packs) == -(-sum(lengths) // 2048)  # the fewest possible, here


def test_best_fit_takes_the_fullest_pack_that_has_room() -> None:
    assert best_fit_decreasing([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert best_fit_decreasing([10, 10], 10) == [[0], [1]]
    assert best_fit_decreasing([], 10) == []


def test_as_few_rows_are_made_as_narrow_as_they_can_be() -> None:
    lengths = [random.Random(i).randint(30, 300) for i in range(60)]  # 9,955 tokens, in 5 rows of 2,048
    rows = pack(lengths, 2048)
    assert sorted(i for row in rows for i in row) == list(range(60))
    assert len(rows) == len(best_fit_decreasing(lengths, 2048))
    widths = [sum(lengths[i] for i in row) for row in rows]
    assert max(widths) <= min(2048, 1.01 * sum(lengths) / len(rows))
    assert max(widths) < max(sum(lengths[i] for i in row) for row in best_fit_decreasing(lengths, 2048))
    assert pack([7], 10) == [[0]]
    assert pack([5, 5, 5], 5) == [[0], [1], [2]]


@pytest.mark.parametrize("pack_tokens", [None, 500])
def test_a_layout_has_every_sample_in_micro_batches_of_the_size(pack_tokens: int | None) -> None:
    lengths = sorted((random.Random(i).randint(30, 300) for i in range(21)), reverse=True)
    for micro_batch in (1, 4, 21, 64):
        layout = lay_out(lengths, micro_batch, pack_tokens)
        assert sorted(i for batch in layout for row in batch for i in row) == list(range(21))
        assert max(sum(map(len, batch)) for batch in layout) <= micro_batch
        assert len(layout) == -(-21 // micro_batch)
        rows = [row for batch in layout for row in batch]
        assert all(sum(lengths[i] for i in row) <= 500 for row in rows)
        assert (max(map(len, rows)) > 1) == (pack_tokens is not None and micro_batch > 1)
    assert lay_out([], 4, pack_tokens) == []


def test_a_document_longer_than_a_row_has_one_for_itself() -> None:
    [batch] = lay_out([900, 200, 200], 4, 500)
    assert batch == [[0], [1, 2]]


def test_there_are_as_many_micro_batches_as_it_takes_for_none_to_have_too_many_tokens() -> None:
    lengths = sorted((random.Random(i).randint(30, 300) for i in range(21)), reverse=True)
    assert len(lay_out(lengths, 64, sys.maxsize)) == 1
    for most, number in ((5000, 1), (1500, 3), (700, 6), (10, 21)):  # of 3,277 tokens
        layout = lay_out(lengths, 64, sys.maxsize, most)
        assert sorted(i for batch in layout for row in batch for i in row) == list(range(21))
        assert all(sum(lengths[i] for i in row) <= most or len(row) == 1 for [row] in layout)
        assert len(layout) == number
    assert lay_out([], 4, sys.maxsize, 100) == []
    assert lay_out([120], 4, sys.maxsize, 100) == [[[0]]]


def test_packing_leaves_less_padding() -> None:
    lengths = sorted((random.Random(i).randint(30, 300) for i in range(24)), reverse=True)
    assert computed_tokens([10, 5, 3], [[[0], [1, 2]]]) == 20
    assert computed_tokens([10, 5, 3], [[[0, 1]], [[2]]], lambda tokens: round_up(tokens, 8)) == 16 + 8
    assert computed_tokens([10, 6], [[[0, 1]]], lambda tokens: round_up(tokens, 8)) == 16
    padded, packed = (computed_tokens(lengths, lay_out(lengths, 8, tokens)) for tokens in (None, 2048))
    assert packed == sum(lengths) < 0.9 * padded


def documents(*lengths: int) -> list[Document]:
    """Ids count on from one document to the next; the labels of all tokens are their ids."""
    ids = torch.split(torch.arange(100, 100 + sum(lengths)), list(lengths))
    return [Document(own, own.clone()) for own in ids]


def test_documents_lie_one_after_the_other_and_the_first_token_of_each_is_not_counted() -> None:
    laid = concatenate(documents(3, 1, 2), pad_id=0)
    assert laid["input_ids"].tolist() == [[100, 101, 102, 103, 104, 105]]
    assert laid["labels"].tolist() == [[NOT_COUNTED, 101, 102, NOT_COUNTED, NOT_COUNTED, 105]]
    assert laid["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert laid["cu_seqlens"].tolist() == [0, 3, 4, 6]
    assert laid["cu_seqlens"].dtype == torch.int32


def test_labels_that_are_not_counted_stay_so() -> None:
    ids = torch.arange(4)
    laid = concatenate([Document(ids, torch.tensor([NOT_COUNTED, NOT_COUNTED, 2, 3]))] * 2, pad_id=0)
    assert laid["labels"].tolist() == [[NOT_COUNTED, NOT_COUNTED, 2, 3] * 2]


def test_a_document_of_padding_and_empty_ones_fill_up_to_the_same_shapes() -> None:
    laid = concatenate(documents(3, 2), pad_id=7, tokens=8, number=5)
    assert laid["input_ids"].tolist() == [[100, 101, 102, 103, 104, 7, 7, 7]]
    assert laid["labels"].tolist() == [[NOT_COUNTED, 101, 102, NOT_COUNTED, 104, *[NOT_COUNTED] * 3]]
    assert laid["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert laid["cu_seqlens"].tolist() == [0, 3, 5, 8, 8, 8]

    for batch in (documents(8), documents(3, 3, 2), documents(1, 1, 1, 1)):  # full, and with nothing left to fill
        other = concatenate(batch, pad_id=7, tokens=8, number=5)
        assert {name: value.shape for name, value in other.items()} == {n: v.shape for n, v in laid.items()}
        assert other["cu_seqlens"][-1] == 8
        assert (other["cu_seqlens"].diff() >= 0).all()
        assert other["cu_seqlens"][: len(batch) + 1].diff().tolist() == [len(document.ids) for document in batch]


def test_weights_stand_where_their_tokens_stand() -> None:
    rows = [documents(3, 2), documents(4)]
    weights = [[torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-4.0, 0.5])], [torch.arange(4.0)]]
    batch = collate(rows, pad_id=0)
    laid = collate_weights(weights, batch["input_ids"].shape[1])
    assert laid.tolist() == [[1.0, 2.0, 3.0, -4.0, 0.5], [0.0, 1.0, 2.0, 3.0, 0.0]]
    flat = concatenate(rows[0], pad_id=0, tokens=8, number=3, weights=weights[0])["weights"]
    assert flat.tolist() == [[1.0, 2.0, 3.0, -4.0, 0.5, 0.0, 0.0, 0.0]]
