"""How the samples of an optimizer step lie in memory: shared among ranks, in micro-batches of padded or packed rows.

None of it changes what is learned: the loss of a step is the mean over its counted tokens, wherever they lie.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ernie_pipeline.training.rows import NOT_COUNTED
from ernie_pipeline.training.schedule.packing import pack


class Document(NamedTuple):
    """One sample: `ids` and `labels` [tokens]. The first token's label is not counted: nothing comes before it."""

    ids: torch.Tensor
    labels: torch.Tensor


Layout = list[list[list[int]]]
"""Micro-batches of rows of positions in a list of documents."""


def share_of(step: Sequence[int], lengths: Sequence[int], rank: int, ranks: int) -> list[int]:
    """What of a step's samples `rank` takes, longest first: about as many tokens as the others, or nothing at all."""
    return sorted(step, key=lambda sample: (-lengths[sample], sample))[rank::ranks]


def lay_out(
    lengths: Sequence[int], micro_batch: int, pack_tokens: int | None, most_tokens: int | None = None
) -> Layout:
    """Documents of `lengths`, longest first, as micro-batches of at most `micro_batch` documents.

    Each has a row of its own, beside others of like length; with `pack_tokens` several share a row of at most as many
    tokens, and each micro-batch gets long ones and short ones: as many micro-batches as it takes for none of several
    documents to have more than `most_tokens`.
    """
    number = -(-len(lengths) // micro_batch)
    if pack_tokens is None:
        each = range(0, len(lengths), micro_batch)
        return [[[position] for position in range(start, len(lengths))[:micro_batch]] for start in each]
    dealt = _dealt(lengths, number)
    while most_tokens and number < len(lengths) and max(sum(lengths[p] for p in own) for own in dealt) > most_tokens:
        number += 1
        dealt = _dealt(lengths, number)
    return [[[own[i] for i in row] for row in pack([lengths[p] for p in own], pack_tokens)] for own in dealt]


def _dealt(lengths: Sequence[int], number: int) -> list[list[int]]:
    return [list(range(first, len(lengths), number)) for first in range(number)]


def computed_tokens(lengths: Sequence[int], layout: Layout, filled: Callable[[int], int] = int) -> int:
    """The tokens that a layout makes the model compute, padding included; `filled`: a row's width."""
    widths = [[sum(lengths[i] for i in row) for row in batch] for batch in layout]
    return sum(len(rows) * filled(max(rows)) for rows in widths)


def rounded_up(number: int, multiple: int) -> int:
    """The next multiple, or the number itself if it is one."""
    return -(-number // multiple) * multiple


def split_documents(batch: dict[str, torch.Tensor]) -> list[Document]:
    """The documents of TRL's padding-free batch: `input_ids`, `labels` and `position_ids` [1, tokens], the last of
    which starts again at 0 with each document."""
    starts = torch.nonzero(batch["position_ids"][0] == 0).flatten().tolist()
    lengths = torch.diff(torch.tensor([*starts, batch["input_ids"].shape[1]])).tolist()
    ids, labels = (torch.split(batch[name][0], lengths) for name in ("input_ids", "labels"))
    return [Document(*document) for document in zip(ids, labels, strict=True)]


def lay_end_to_end(
    documents: Sequence[Document], pad_id: int, tokens: int | None = None, number: int | None = None
) -> dict[str, torch.Tensor]:
    """The inputs of a model that takes documents laid end to end: `input_ids`, `labels` and `position_ids` [1, tokens],
    and `starts` [number + 1] int32, where each document begins, with the end of the last.

    With `tokens` it is filled up to as many by a document of padding that is not counted, and with `number` by empty
    documents: batches of the same two numbers have the same shapes.
    """
    lengths = [len(document.ids) for document in documents]
    spare = 0 if tokens is None else tokens - sum(lengths)
    ids = torch.cat([document.ids for document in documents] + [torch.full((spare,), pad_id)])
    labels = torch.full_like(ids, NOT_COUNTED)
    starts = [0]
    for document in documents:
        start, end = starts[-1], starts[-1] + len(document.ids)
        labels[start + 1 : end] = document.labels[1:]
        starts.append(end)
    positions = torch.cat([torch.arange(length) for length in (*lengths, spare)])
    ends = [len(ids)] * ((number or len(starts)) + 1 - len(starts)) if tokens is not None else []
    return {
        "input_ids": ids[None],
        "labels": labels[None],
        "position_ids": positions[None],
        "starts": torch.tensor([*starts, *ends], dtype=torch.int32),
    }


def collate(rows: Sequence[Sequence[Document]], pad_id: int) -> dict[str, torch.Tensor]:
    """The model's inputs for rows of one document, or of several packed ones: `input_ids` and `labels` [rows, width].

    Nothing is told of a document by the one before it in its row: its first token is not counted, and with
    `position_ids` that start again at 0 for each document, and no attention mask, transformers lets none attend to
    another (`masking_utils.find_packed_sequence_indices`; only while `use_cache` is off). Padding, on the right, is a
    document of its own that is not counted. Rows of one document need no positions: nothing attends to what follows.
    """
    width = max(sum(len(document.ids) for document in row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    labels, positions = torch.full_like(ids, NOT_COUNTED), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        end = 0
        for document in row:
            start, end = end, end + len(document.ids)
            ids[number, start:end] = document.ids
            labels[number, start + 1 : end] = document.labels[1:]
            positions[number, start:end] = torch.arange(len(document.ids))
        positions[number, end:] = torch.arange(width - end)
    packed = any(len(row) > 1 for row in rows)
    return {"input_ids": ids, "labels": labels, **({"position_ids": positions} if packed else {})}
