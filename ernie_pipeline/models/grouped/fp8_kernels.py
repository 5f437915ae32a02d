"""The Triton kernels of `fp8_mm`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl


@triton.jit
def rows_in_fp8(
    rows, out, scales, factor, stride,
    DEPTH: tl.constexpr, RANK: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """Programs of one row each."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    x = tl.load(rows + row * stride + column, mask=column < DEPTH, other=0.0).to(tl.float32)
    # of what is behind: the value, what rounding leaves of it, and the value again
    tail = tl.arange(0, TAIL)
    own = tl.load(rows + row * stride + DEPTH + tail % RANK, mask=tail < 3 * RANK, other=0.0).to(tl.float32)
    most = tl.maximum(tl.max(tl.abs(x), axis=0), tl.max(tl.abs(own), axis=0))
    scale = tl.maximum(most, 1e-30) / 448
    tl.store(scales + row, scale * tl.load(factor))
    target = out + row * WIDTH
    tl.store(target + column, (x / scale).to(out.dtype.element_ty), mask=column < DEPTH)
    own = own / scale
    coarse = own.to(out.dtype.element_ty)
    rest = (own - coarse.to(tl.float32)).to(out.dtype.element_ty)
    fine = (tail >= RANK) & (tail < 2 * RANK)
    tl.store(target + DEPTH + tail, coarse, mask=(tail < WIDTH - DEPTH) & (fine == 0))
    tl.store(target + DEPTH + tail, rest, mask=fine)


@triton.jit
def weights_in_fp8(
    quantized, absmax, code2, absmax2, offset, code, factor, out, stride,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr,
    TRANSPOSE: tl.constexpr, HEIGHT: tl.constexpr,
):  # fmt: skip
    """Programs (HEIGHT outputs, a block of inputs, an expert): to out[expert, output, input], or with TRANSPOSE to
    out[expert, input, output]."""
    expert = tl.program_id(2).to(tl.int64)
    output = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    inside = output < OUTPUTS
    block = (expert * OUTPUTS + output) * (INPUTS // BLOCK) + tl.program_id(1)
    if NESTED:
        inner = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
        scale = tl.load(code2 + inner) * tl.load(absmax2 + block // BLOCK2, mask=inside, other=0.0)
        scale += tl.load(offset).to(tl.float32)
    else:
        scale = tl.load(absmax + block, mask=inside, other=0.0)
    scale = (scale / tl.load(factor))[:, None]
    byte = block[:, None] * (BLOCK // 2) + tl.arange(0, BLOCK // 2)[None, :]
    both = tl.load(quantized + byte, mask=inside[:, None], other=0).to(tl.int32)
    high = tl.load(code + (both >> 4)) * scale  # the earlier value is in the high bits
    low = tl.load(code + (both & 15)) * scale
    values = tl.interleave(high, low).to(out.dtype.element_ty)
    input = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if TRANSPOSE:
        target = out + (expert * INPUTS + input)[:, None] * stride + output[None, :]
        tl.store(target, tl.trans(values), mask=inside[None, :])
    else:
        target = out + (expert * OUTPUTS + output)[:, None] * stride + input[None, :]
        tl.store(target, values, mask=inside[:, None])


@triton.jit
def adapter_in_fp8(
    lora, factor, out, expert_stride, wide_stride, rank_stride, stride,
    WIDE: tl.constexpr, DEPTH: tl.constexpr, RANK: tl.constexpr, HEIGHT: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """Programs (HEIGHT rows of an expert's weights, an expert): what stands behind the base's values."""
    expert = tl.program_id(1).to(tl.int64)
    wide = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    tail = tl.arange(0, TAIL)
    # the value, the value again, and what rounding leaves of it
    source = lora + expert * expert_stride + wide[:, None] * wide_stride + (tail % RANK)[None, :] * rank_stride
    inside = wide[:, None] < WIDE
    own = tl.load(source, mask=inside & (tail < 3 * RANK)[None, :], other=0.0).to(tl.float32) / tl.load(factor)
    coarse = own.to(out.dtype.element_ty)
    rest = (own - coarse.to(tl.float32)).to(out.dtype.element_ty)
    target = out + (expert * WIDE + wide)[:, None] * stride + DEPTH + tail[None, :]
    fine = (tail >= 2 * RANK) & (tail < 3 * RANK)
    tl.store(target, coarse, mask=inside & ((tail < stride - DEPTH) & (fine == 0))[None, :])
    tl.store(target, rest, mask=inside & fine[None, :])
