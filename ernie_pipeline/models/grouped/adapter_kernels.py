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
    first_A, first_B, second_A, second_B, lora_A, lora_B, scale, rank, inputs, height, outputs,
    A_expert_stride, A_row_stride, B_expert_stride, B_row_stride,
    FIRST: tl.constexpr, TARGETS: tl.constexpr, ALIGNED: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Programs (expert, place): A's values come first, then B's; both in blocks of BLOCK values."""
    expert = tl.program_id(0).to(tl.int64)
    blocks_of_A = tl.cdiv(TARGETS * ALIGNED * inputs, BLOCK)
    if tl.program_id(1) < blocks_of_A:
        value = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        row, column = value // inputs, value % inputs
        own, there = row % ALIGNED, row < TARGETS * ALIGNED
        source = expert * rank * inputs + own * inputs + column
        a = tl.load(first_A + source, mask=(row < ALIGNED) & (own < rank), other=0.0)
        if TARGETS > 1:
            a += tl.load(second_A + source, mask=(row >= ALIGNED) & there & (own < rank), other=0.0)
        place = lora_A + expert * A_expert_stride + row * A_row_stride + column
        tl.store(place, a.to(lora_A.dtype.element_ty), mask=there)
    else:
        value = (tl.program_id(1) - blocks_of_A) * BLOCK + tl.arange(0, BLOCK)
        row, column = value // WIDTH, value % WIDTH
        there = (row < outputs) & (column < TARGETS * ALIGNED)
        target, own = row // height, column % ALIGNED
        source = expert * height * rank + (row - target * height) * rank + own
        mine = (target - FIRST == column // ALIGNED) & there & (own < rank)
        b = tl.load(first_B + source, mask=mine & (target == FIRST), other=0.0)
        if TARGETS > 1:
            b += tl.load(second_B + source, mask=mine & (target != FIRST), other=0.0)
        place = lora_B + expert * B_expert_stride + row * B_row_stride + column
        tl.store(place, (b * scale).to(lora_B.dtype.element_ty), mask=there)
