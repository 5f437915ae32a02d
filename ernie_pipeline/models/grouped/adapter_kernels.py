"""The Triton kernels of `adapter_ops`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl

from ernie_pipeline.models.grouped.kernels import tile_of_expert


@triton.jit
def low_rank(
    source, token, lora, ends, rows, out, experts, width,
    source_stride, expert_stride, width_stride, depth_stride, rows_stride,
    DEPTH: tl.constexpr, GATHER: tl.constexpr,
    EXPERTS: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    expert, first, end = tile_of_expert(ends, tl.program_id(0), experts, EXPERTS, ROWS)
    if expert >= experts:  # more programs than tiles: how many there are only the device knows
        return
    row = (first + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < end
    column = tl.arange(0, WIDTH)
    within = column < width
    step = tl.arange(0, STEP)
    own = tl.load(token + row, mask=inside, other=0) if GATHER else row
    places = lora + expert.to(tl.int64) * expert_stride + column[None, :] * width_stride
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for done in range(0, DEPTH, STEP):
        deep = done + step
        there = inside[:, None] & (deep < DEPTH)[None, :]
        x = tl.load(source + own[:, None] * source_stride + deep[None, :], mask=there, other=0.0)
        if GATHER:
            tl.store(rows + row[:, None] * rows_stride + deep[None, :], x, mask=there)
        a = tl.load(
            places + deep[:, None].to(tl.int64) * depth_stride,
            mask=(deep < DEPTH)[:, None] & within[None, :],
            other=0.0,
        )
        total = tl.dot(x, a, total, input_precision="ieee")
    low = total.to(rows.dtype.element_ty)
    there = inside[:, None] & within[None, :]
    tl.store(rows + row[:, None] * rows_stride + DEPTH + column[None, :], low, mask=there)
    tl.store(out + row[:, None] * width + column[None, :], low, mask=there)


@triton.jit
def write_adapter(
    A0, B0, A1, B1, A2, B2, lora_A, lora_B, scale0, scale1, scale2,
    rank0, height0, row0, column0, rank1, height1, row1, column1, rank2, height2, row2, column2,
    inputs, outputs, width, A_expert_stride, A_row_stride, B_expert_stride, B_row_stride,
    PARTS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Programs (expert, place): A's values come first, then B's; both in blocks of BLOCK values."""
    expert = tl.program_id(0).to(tl.int64)
    blocks_of_A = tl.cdiv(width * inputs, BLOCK)
    if tl.program_id(1) < blocks_of_A:
        value = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        row, column = value // inputs, value % inputs
        a = _part_of_A(A0, expert, row - column0, column, rank0, inputs)
        if PARTS > 1:
            a += _part_of_A(A1, expert, row - column1, column, rank1, inputs)
        if PARTS > 2:
            a += _part_of_A(A2, expert, row - column2, column, rank2, inputs)
        place = lora_A + expert * A_expert_stride + row * A_row_stride + column
        tl.store(place, a.to(lora_A.dtype.element_ty), mask=row < width)
    else:
        value = (tl.program_id(1) - blocks_of_A) * BLOCK + tl.arange(0, BLOCK)
        row, column = value // WIDTH, value % WIDTH
        b = _part_of_B(B0, expert, row - row0, column - column0, height0, rank0) * scale0
        if PARTS > 1:
            b += _part_of_B(B1, expert, row - row1, column - column1, height1, rank1) * scale1
        if PARTS > 2:
            b += _part_of_B(B2, expert, row - row2, column - column2, height2, rank2) * scale2
        place = lora_B + expert * B_expert_stride + row * B_row_stride + column
        tl.store(place, b.to(lora_B.dtype.element_ty), mask=(row < outputs) & (column < width))


@triton.jit
def _part_of_A(A, expert, row, column, rank, inputs):
    """Of one part [experts, rank, inputs]; zero beside it."""
    return tl.load(A + (expert * rank + row) * inputs + column, mask=(row >= 0) & (row < rank), other=0.0)


@triton.jit
def _part_of_B(B, expert, row, column, height, rank):
    """Of one part [experts, height, rank]; zero beside it."""
    mine = (row >= 0) & (row < height) & (column >= 0) & (column < rank)
    return tl.load(B + (expert * height + row) * rank + column, mask=mine, other=0.0)
