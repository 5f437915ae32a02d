"""The Triton kernels of `fused_ops`, `grouped_mm`, `dequantize` and `outer_products`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl


def tile_size(size: int, most: int) -> int:
    """What a tile has of `size` rows or columns: a power of two, and 16 at least, as the matrix units want it."""
    power: int = triton.next_power_of_2(size)
    return min(most, max(16, power))


@triton.jit
def swiglu(
    gate, up, weight, out, gate_stride, up_stride, out_stride,
    INNER: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < INNER
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    value = g * tl.sigmoid(g) * u
    if WEIGHTED:
        value *= tl.load(weight + row).to(tl.float32)
    tl.store(out + row * out_stride + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(
    gate, up, weight, grad, grad_gate_up, grad_weight, recomputed,
    gate_stride, up_stride, grad_stride, grad_gate_up_stride, recomputed_stride,
    INNER: tl.constexpr, WEIGHTED: tl.constexpr, RECOMPUTE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < INNER
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.load(grad + row * grad_stride + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(g)
    silu = g * sigmoid
    value = silu * u
    if WEIGHTED:
        tl.store(grad_weight + row, tl.sum(total * value, axis=0).to(grad_weight.dtype.element_ty))
        own = tl.load(weight + row).to(tl.float32)
        total *= own
        value *= own
    if RECOMPUTE:
        tl.store(recomputed + row * recomputed_stride + column, value.to(recomputed.dtype.element_ty), mask=inside)
    dtype = grad_gate_up.dtype.element_ty
    target = grad_gate_up + row * grad_gate_up_stride + column
    tl.store(target, (total * u * (sigmoid + silu * (1 - sigmoid))).to(dtype), mask=inside)
    tl.store(target + INNER, (total * silu).to(dtype), mask=inside)


@triton.jit
def sum_slots(
    rows, row_of_slot, out, stride, W: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < W
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for slot in tl.static_range(SLOTS):
        row = tl.load(row_of_slot + token * SLOTS + slot)
        total += tl.load(rows + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * W + column, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def tile_of_expert(ends, tile, experts, EXPERTS: tl.constexpr, ROWS: tl.constexpr):
    """Of a tile of rows its expert, its first row, and the row after its expert's last; there may be no such expert."""
    number = tl.arange(0, EXPERTS)
    end = tl.load(ends + number, mask=number < experts, other=0)
    start = tl.load(ends + number - 1, mask=(number > 0) & (number < experts), other=0)
    tiles = tl.where(number < experts, (end - start + ROWS - 1) // ROWS, 0)
    upto = tl.cumsum(tiles, axis=0)
    expert = tl.sum((upto <= tile).to(tl.int32), axis=0)
    own = number == expert
    earlier = tl.sum(tl.where(own, upto - tiles, 0), axis=0)
    first = tl.sum(tl.where(own, start, 0), axis=0) + (tile - earlier) * ROWS
    return expert, first, tl.sum(tl.where(own, end, 0), axis=0)


@triton.jit
def grouped_mm(
    rows, weights, ends, out, experts, depth, n, rows_stride, expert_stride, depth_stride, column_stride, out_stride,
    EXPERTS: tl.constexpr, EVEN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(n, COLUMNS)
    tile = tl.program_id(0) // across  # those of a tile's rows, and then of an expert's, run at the same time
    expert, first, last = tile_of_expert(ends, tile, experts, EXPERTS, ROWS)
    if expert >= experts:  # more programs than tiles: how many there are only the device knows
        return
    row = first + tl.arange(0, ROWS)
    inside = row < last
    column = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < n
    step = tl.arange(0, DEPTH)
    left = rows + row.to(tl.int64)[:, None] * rows_stride + step[None, :]
    right = weights + expert.to(tl.int64) * expert_stride
    right += step[:, None] * depth_stride + column[None, :] * column_stride
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for done in range(0, depth, DEPTH):
        deep = step < (DEPTH if EVEN else depth - done)
        x = tl.load(left, mask=inside[:, None] & deep[None, :], other=0.0)
        w = tl.load(right, mask=deep[:, None] & within[None, :], other=0.0)
        total = tl.dot(x, w, total, input_precision="ieee")
        left += DEPTH
        right += DEPTH * depth_stride
    target = out + row.to(tl.int64)[:, None] * out_stride + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=inside[:, None] & within[None, :])


@triton.jit
def outer_products(
    narrow, wide, token, ends, first_out, second_out, scale,
    narrow_stride, wide_stride, expert_stride, rank_stride, column_stride,
    RANK: tl.constexpr, N: tl.constexpr, OUTS: tl.constexpr, ALIGNED: tl.constexpr, INDEXED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.program_id(2) * RANKS + tl.arange(0, RANKS)
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends + expert)
    if start == end:  # nothing to add
        return
    total = tl.zeros((COLUMNS, RANKS), dtype=tl.float32)
    for first in range(start, end, ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        inside = (row < end)[:, None]
        source = tl.load(token + row, mask=row < end, other=0) if INDEXED else row
        many = tl.load(
            wide + source[:, None] * wide_stride + column[None, :], mask=inside & (column < N)[None, :], other=0.0
        )
        few = tl.load(
            narrow + row[:, None] * narrow_stride + rank[None, :],
            mask=inside & (rank < OUTS * ALIGNED)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(many), few, total)
    total *= scale
    for number in tl.static_range(OUTS):
        out = first_out if number == 0 else second_out
        own = rank - number * ALIGNED
        target = out + expert * expert_stride + column[:, None] * column_stride + own[None, :] * rank_stride
        there = (column < N)[:, None] & ((own >= 0) & (own < RANK))[None, :]
        tl.store(target, tl.load(target, mask=there, other=0.0) + total, mask=there)


@triton.jit
def rotary(
    heads, cos, sin, out, stride, out_stride, HEADS: tl.constexpr, HALF: tl.constexpr, BACK: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, HALF)
    column = tl.arange(0, 2 * HALF)
    c = tl.load(cos + token * HALF + pair)
    s = tl.load(sin + token * HALF + pair)
    if BACK:
        s = -s
    for head in range(HEADS):
        values = tl.load(heads + token * stride + head * 2 * HALF + column).to(tl.float32)
        x, y = tl.split(tl.reshape(values, (HALF, 2)))
        both = tl.interleave(x * c - y * s, y * c + x * s)
        tl.store(out + token * out_stride + head * 2 * HALF + column, both.to(out.dtype.element_ty))


@triton.jit
def loss_and_gradient(
    logits, labels, weights, losses,
    V: tl.constexpr, IGNORED: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    own = logits + row * V
    column = tl.arange(0, BLOCK)
    highest = -float("inf")
    total = 0.0
    for start in range(0, V, BLOCK):  # the sum of exponentials, rescaled whenever a higher logit turns up
        piece = tl.load(own + start + column, mask=start + column < V, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(piece, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(piece - higher), axis=0)
        highest = higher
    log_total = highest + tl.log(total)
    counted = label != IGNORED
    wanted = tl.load(own + tl.where(counted, label, 0)).to(tl.float32)
    loss = log_total - wanted
    if WEIGHTED:
        weight = tl.load(weights + row)
        loss *= weight
    tl.store(losses + row, tl.where(counted, loss, 0.0))
    tl.debug_barrier()  # the label's logit is read by every thread before one of them overwrites it
    for start in range(0, V, BLOCK):
        inside = start + column < V
        piece = tl.load(own + start + column, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.exp(piece - log_total) - tl.where(start + column == label, 1.0, 0.0)
        if WEIGHTED:
            gradient *= weight
        tl.store(own + start + column, tl.where(counted, gradient, 0.0).to(logits.dtype.element_ty), mask=inside)


@triton.jit
def values_of_blocks(
    quantized, absmax, code2, absmax2, offset, code, block, inside,
    BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr,
):  # fmt: skip
    """[blocks, BLOCK] in fp32: of each `block` [blocks] the values, whose constant is looked up once."""
    HALF: tl.constexpr = BLOCK // 2
    if NESTED:
        inner = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
        scale = tl.load(code2 + inner) * tl.load(absmax2 + block // BLOCK2, mask=inside, other=0.0)
        scale += tl.load(offset).to(tl.float32)
    else:
        scale = tl.load(absmax + block, mask=inside, other=0.0)
    byte = block[:, None] * HALF + tl.arange(0, HALF)[None, :]
    both = tl.load(quantized + byte, mask=inside[:, None], other=0).to(tl.int32)
    high = tl.load(code + (both >> 4)) * scale[:, None]  # the earlier value is in the high bits
    low = tl.load(code + (both & 15)) * scale[:, None]
    return tl.interleave(high, low)


@triton.jit
def dequantize(
    quantized, absmax, code2, absmax2, offset, code, out, n_bytes, stride, gap,
    K: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    # a row of the tile is a block of values that share a constant, so that it is looked up once
    HALF: tl.constexpr = BLOCK // 2
    BLOCKS: tl.constexpr = BYTES // HALF
    first = tl.program_id(0).to(tl.int64) * BLOCKS
    block = first + tl.arange(0, BLOCKS)
    inside = block < n_bytes // HALF
    values = values_of_blocks(quantized, absmax, code2, absmax2, offset, code, block, inside, BLOCK, BLOCK2, NESTED)
    place = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    row = place // K
    tl.store(
        out + row * stride + (row // ROWS) * gap + (place - row * K),
        values.to(out.dtype.element_ty),
        mask=inside[:, None],
    )
