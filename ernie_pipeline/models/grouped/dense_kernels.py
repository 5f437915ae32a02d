"""The Triton kernels of `dense_ops`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["number"])  # a multiple of 16 or not would be another kernel
def low_rank_of_all(
    source, norm, lora, rows, out, number, width, epsilon,
    source_stride, width_stride, depth_stride, rows_stride,
    DEPTH: tl.constexpr, COPY: tl.constexpr, NORM: tl.constexpr,
    ROWS: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """COPY: the rows of `source` go into `rows`, normalized where NORM says so; without it they are there already."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < number)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    within = column < width
    step = tl.arange(0, STEP)
    left = source + row[:, None] * source_stride
    if NORM:
        squares = tl.zeros((ROWS,), dtype=tl.float32)
        for done in range(0, DEPTH, SQUARES):
            deep = (done + tl.arange(0, SQUARES))[None, :]
            x = tl.load(left + deep, mask=inside & (deep < DEPTH), other=0.0).to(tl.float32)
            squares += tl.sum(x * x, axis=1)
        factor = tl.rsqrt(squares / DEPTH + epsilon)
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for done in range(0, DEPTH, STEP):
        deep = (done + step)[None, :]
        there = inside & (deep < DEPTH)
        x = tl.load(left + deep, mask=there, other=0.0)
        if NORM:
            weight = tl.load(norm + deep, mask=deep < DEPTH, other=0.0).to(tl.float32)
            x = (x.to(tl.float32) * factor[:, None] * weight).to(rows.dtype.element_ty)
        if COPY:
            tl.store(rows + row[:, None] * rows_stride + deep, x, mask=there)
        deeper = (done + step)[:, None]
        a = tl.load(
            lora + deeper.to(tl.int64) * depth_stride + column * width_stride,
            mask=(deeper < DEPTH) & within,
            other=0.0,
        )
        total = tl.dot(x, a, total, input_precision="ieee")
    low = total.to(rows.dtype.element_ty)
    tl.store(rows + row[:, None] * rows_stride + DEPTH + column, low, mask=inside & within)
    tl.store(out + row[:, None] * width + column, low, mask=inside & within)


@triton.jit
def rms_norm_backward(
    x, norm, grad, other, normalized, grad_x, epsilon,
    DEPTH: tl.constexpr, ADDED: tl.constexpr, NORMALIZED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * DEPTH
    column = tl.arange(0, BLOCK)
    inside = column < DEPTH
    value = tl.load(x + row + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(value * value, axis=0) / DEPTH + epsilon)
    value *= factor
    weight = tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
    if NORMALIZED:
        tl.store(normalized + row + column, (value * weight).to(normalized.dtype.element_ty), mask=inside)
    g = tl.load(grad + row + column, mask=inside, other=0.0).to(tl.float32) * weight
    total = (g - value * (tl.sum(g * value, axis=0) / DEPTH)) * factor
    if ADDED:
        total += tl.load(other + row + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(grad_x + row + column, total.to(grad_x.dtype.element_ty), mask=inside)
