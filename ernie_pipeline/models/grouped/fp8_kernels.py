"""The Triton kernels of `fp8_mm`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl

from ernie_pipeline.models.grouped.kernels import values_of_blocks


@triton.jit
def _rounded(x):
    """To a value that e4m3 holds, in fp32: what a cast to 8 bits and back gives, which Triton 3.6 gets wrong in some
    layouts. The values that it holds lie 2^-9 apart below 2^-6, and above have three bits of mantissa."""
    bits = x.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000).to(tl.float32, bitcast=True)
    few = 24576.0  # beside it fp32 has no digits below 2^-9
    return tl.where(tl.abs(x) < 0.015625, (x + few) - few, normal)


@triton.jit
def rows_in_fp8(
    rows, out, scales, factor, stride,
    DEPTH: tl.constexpr, RANK: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """Programs of one row each."""
    row = tl.program_id(0).to(tl.int64)
    column, behind = tl.arange(0, BLOCK), tl.arange(0, RANKS)
    x = tl.load(rows + row * stride + column, mask=column < DEPTH, other=0.0).to(tl.float32)
    u = tl.load(rows + row * stride + DEPTH + behind, mask=behind < RANK, other=0.0).to(tl.float32)
    most = tl.maximum(tl.max(tl.abs(x), axis=0), tl.max(tl.abs(u), axis=0))
    scale = tl.maximum(most, 1e-30) / 448
    tl.store(scales + row, scale * tl.load(factor))
    target = out + row * WIDTH
    tl.store(target + column, (x / scale).to(out.dtype.element_ty), mask=column < DEPTH)
    target += DEPTH + behind
    u = u / scale
    rest = (u - _rounded(u)).to(out.dtype.element_ty)
    coarse = _rounded(u).to(out.dtype.element_ty)
    tl.store(target, coarse, mask=behind < RANK)
    tl.store(target + RANK, rest, mask=behind < RANK)
    tl.store(target + 2 * RANK, coarse, mask=behind < RANK)
    tl.store(target + 3 * RANK, tl.zeros((RANKS,), out.dtype.element_ty), mask=behind < WIDTH - DEPTH - 3 * RANK)


@triton.jit
def transposed(
    quantized, absmax, code2, absmax2, offset, code, out, stride,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr,
    HEIGHT: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Programs (HEIGHT outputs, BLOCKS blocks of inputs, an expert): `dequantize`, to out[expert, input, output]."""
    expert = tl.program_id(2).to(tl.int64)
    output = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    for number in tl.static_range(BLOCKS):
        first = tl.program_id(1) * BLOCKS + number
        inside = (output < OUTPUTS) & (first < INPUTS // BLOCK)
        block = (expert * OUTPUTS + output) * (INPUTS // BLOCK) + first
        values = values_of_blocks(quantized, absmax, code2, absmax2, offset, code, block, inside, BLOCK, BLOCK2, NESTED)
        values = tl.trans(values.to(out.dtype.element_ty))
        input = first * BLOCK + tl.arange(0, BLOCK)
        target = out + (expert * INPUTS + input)[:, None] * stride + output[None, :]
        tl.store(target, values, mask=inside[None, :])


@triton.jit
def adapter_in_fp8(
    lora, factor, out, expert_stride, wide_stride, rank_stride,
    WIDE: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr, WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """Programs (HEIGHT rows of an expert's weights, an expert): what stands behind the base's values."""
    expert = tl.program_id(1).to(tl.int64)
    wide = (tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT))[:, None]
    behind = tl.arange(0, RANKS)[None, :]
    inside = (wide < WIDE) & (behind < RANK)
    b = tl.load(lora + expert * expert_stride + wide * wide_stride + behind * rank_stride, mask=inside, other=0.0)
    b = b.to(tl.float32) / tl.load(factor)
    rest = (b - _rounded(b)).to(out.dtype.element_ty)
    coarse = _rounded(b).to(out.dtype.element_ty)
    target = out + (expert * WIDE + wide) * WIDTH + DEPTH + behind
    tl.store(target, coarse, mask=inside)
    tl.store(target + RANK, coarse, mask=inside)
    tl.store(target + 2 * RANK, rest, mask=inside)
    left = (wide < WIDE) & (behind < WIDTH - DEPTH - 3 * RANK)
    tl.store(target + 3 * RANK, tl.zeros((HEIGHT, RANKS), out.dtype.element_ty), mask=left)
