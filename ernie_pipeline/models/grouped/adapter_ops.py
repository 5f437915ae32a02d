"""What the experts' adapters need beside the products: their values beside the base's, and what A makes of the rows.

Each is one pass over memory on CUDA, where torch's operations are several: a cast, zeros and a copy for each target; a
padding, a gathering, a product of 16 or 32 columns, which reads all rows again, and a copy of what it gives.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ernie_pipeline.models.grouped.grouped_mm import grouped_mm

try:
    import triton

    from ernie_pipeline.models.grouped import adapter_kernels
    from ernie_pipeline.models.grouped.kernels import tile_size
except ImportError:  # no CUDA build of torch
    triton = None

ROWS, STEP = 64, 128
"""The rows of a program, and how deep it reads at a time: the fastest, or nearly, of eight for 1,280 tokens and for
8,192, on an H200."""


def gather_with_low_rank(
    source: torch.Tensor, token: torch.Tensor, lora: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of `source` [tokens, depth] the row of each `token` [rows], and beside it what its expert's `lora` [experts,
    width, depth] makes of it: [rows, depth + width]; and the latter alone [rows, width].

    `ends` [experts] is the row after each expert's last, int32.
    """
    depth, width = source.shape[1], lora.shape[1]
    if not source.is_cuda:
        rows = F.pad(source, (0, width))[token]
        return rows, add_low_rank(rows, lora, ends)
    rows = source.new_empty(len(token), depth + width)
    return rows, _launch(source, token, lora, ends, rows)


def add_low_rank(rows: torch.Tensor, lora: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Write what an expert's `lora` makes of rows[:, :depth] into the columns behind; see `gather_with_low_rank`."""
    depth = lora.shape[2]
    if not rows.is_cuda:
        low_rank = grouped_mm(rows[:, :depth], lora.transpose(1, 2), ends)
        rows[:, depth:] = low_rank
        return low_rank
    return _launch(rows, None, lora, ends, rows)


def _launch(
    source: torch.Tensor, token: torch.Tensor | None, lora: torch.Tensor, ends: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    experts, width, depth = lora.shape
    out = rows.new_empty(len(rows), width)
    # an expert's last tile is not full, so there may be one more for each
    adapter_kernels.low_rank[(len(rows) // ROWS + experts,)](
        source,
        source if token is None else token,
        lora,
        ends,
        rows,
        out,
        experts,
        width,
        source.stride(0),
        *lora.stride(),
        rows.stride(0),
        DEPTH=depth,
        GATHER=token is not None,
        EXPERTS=triton.next_power_of_2(experts),
        ROWS=ROWS,
        STEP=STEP,
        WIDTH=tile_size(width, 1024),
        num_warps=8,
        num_stages=3,
    )
    return out


class Part(NamedTuple):
    """One target's adapter, and where it stands among others': B's first row, and B's first column, which is A's first
    row."""

    lora_A: torch.Tensor
    """[experts, rank, inputs]"""
    lora_B: torch.Tensor
    """[experts, height, rank]"""
    scale: float
    row: int
    column: int


MOST_PARTS = 3


def write_adapter(
    lora_A: torch.Tensor, lora_B: torch.Tensor, pairs: Mapping[int, Sequence[torch.Tensor]], aligned: int, scale: float
) -> None:
    """As `write_parts`: of A [experts, rank, inputs] and B [experts, height, rank] of one target, or of two that follow
    one another, by its number; outputs are `height` rows of each. It has `aligned` of the width, at least its rank."""
    parts = [
        Part(a, b, scale, row=target * b.shape[1], column=place * aligned)
        for place, (target, (a, b)) in enumerate(pairs.items())
    ]
    write_parts(lora_A, lora_B, parts)


def write_parts(lora_A: torch.Tensor, lora_B: torch.Tensor, parts: Sequence[Part]) -> None:
    """Fill `lora_A` [experts, width, inputs] and `lora_B` [experts, outputs, width] with the values of up to
    `MOST_PARTS` parts, B's multiplied by its scale; what is of none becomes 0."""
    if not lora_A.is_cuda:
        _write_in_torch(lora_A, lora_B, parts)
        return
    experts, width, inputs = lora_A.shape
    outputs, block = lora_B.shape[1], 1024
    columns = triton.next_power_of_2(width)
    blocks = triton.cdiv(width * inputs, block) + triton.cdiv(outputs * columns, block)
    three = [*parts, *[parts[0]] * (MOST_PARTS - len(parts))]
    adapter_kernels.write_adapter[(experts, blocks)](
        *(tensor for part in three for tensor in (part.lora_A, part.lora_B)),
        lora_A,
        lora_B,
        *(part.scale for part in three),
        *(size for part in three for size in (part.lora_A.shape[1], part.lora_B.shape[1], part.row, part.column)),
        inputs,
        outputs,
        width,
        *lora_A.stride()[:2],
        *lora_B.stride()[:2],
        PARTS=len(parts),
        WIDTH=columns,
        BLOCK=block,
        num_warps=4,
    )


def _write_in_torch(lora_A: torch.Tensor, lora_B: torch.Tensor, parts: Sequence[Part]) -> None:
    lora_A.zero_()
    lora_B.zero_()
    for a, b, scale, row, column in parts:
        columns = slice(column, column + a.shape[1])
        lora_A[:, columns] = a
        lora_B[:, row : row + b.shape[1], columns] = b * scale
