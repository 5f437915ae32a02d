"""Documents as a model's inputs: padded rows, packed rows, or all in one row without padding."""

from collections.abc import Callable, Sequence

import torch

from ernie_pipeline.models.documents import NOT_COUNTED, Document
from ernie_pipeline.models.micro_batches.packing import pack

Inputs = dict[str, torch.Tensor]

Layout = list[list[list[int]]]
"""Micro-batches of rows of positions in a list of documents."""


def lay_out(lengths: Sequence[int], micro_batch: int, pack_tokens: int | None, max_tokens: int | None = None) -> Layout:
    """Documents of `lengths`, longest first, as micro-batches of at most `micro_batch` documents.

    Each has a row of its own, beside others of like length; with `pack_tokens` several share a row of at most as many
    tokens (a longer one has a row for itself), and each micro-batch gets long ones and short ones: as many
    micro-batches as it takes for none of several documents to have more than `max_tokens`.
    """
    number = -(-len(lengths) // micro_batch)
    if pack_tokens is None:
        each = range(0, len(lengths), micro_batch)
        return [[[position] for position in range(start, len(lengths))[:micro_batch]] for start in each]
    dealt = _dealt(lengths, number)
    while max_tokens and number < len(lengths) and max(sum(lengths[p] for p in own) for own in dealt) > max_tokens:
        number += 1
        dealt = _dealt(lengths, number)
    capacity = max(pack_tokens, max(lengths, default=0))
    return [[[own[i] for i in row] for row in pack([lengths[p] for p in own], capacity)] for own in dealt]


def _dealt(lengths: Sequence[int], number: int) -> list[list[int]]:
    return [list(range(first, len(lengths), number)) for first in range(number)]


def computed_tokens(lengths: Sequence[int], layout: Layout, width_of: Callable[[int], int] = int) -> int:
    """The tokens that a layout makes the model compute, padding included; `width_of`: the width of a row of tokens."""
    widths = [[sum(lengths[i] for i in row) for row in batch] for batch in layout]
    return sum(len(rows) * width_of(max(rows)) for rows in widths)


def longest_first(documents: Sequence[Document]) -> list[int]:
    """Positions of the documents, the longest first; of equal ones, the earlier."""
    return sorted(range(len(documents)), key=lambda i: (-len(documents[i].ids), i))


def batches_by_length(documents: Sequence[Document], max_tokens: int) -> list[list[int]]:
    """Positions of documents of like length together, longest first; rows times width are at most `max_tokens`."""
    batches: list[list[int]] = []
    for position in longest_first(documents):
        if batches and len(documents[batches[-1][0]].ids) * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def collate(rows: Sequence[Sequence[Document]], pad_id: int) -> Inputs:
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


def collate_weights(rows: Sequence[Sequence[torch.Tensor]], width: int) -> torch.Tensor:
    """The weights [rows, width] of the tokens that `collate` lays out, 0 for padding; fp32."""
    out = torch.zeros(len(rows), width)
    for number, row in enumerate(rows):
        values = torch.cat(list(row))
        out[number, : len(values)] = values
    return out


def concatenate(
    documents: Sequence[Document],
    pad_id: int,
    tokens: int | None = None,
    number: int | None = None,
    weights: Sequence[torch.Tensor] | None = None,
) -> Inputs:
    """Documents one after the other: `input_ids`, `labels` and `position_ids` [1, tokens], and `cu_seqlens` [number +
    1] int32, where each document begins, with the end of the last; with `weights` also `weights` [1, tokens].

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
    inputs = {
        "input_ids": ids[None],
        "labels": labels[None],
        "position_ids": positions[None],
        "cu_seqlens": torch.tensor([*starts, *ends], dtype=torch.int32),
    }
    if weights is not None:
        inputs["weights"] = collate_weights([weights], len(ids))
    return inputs
