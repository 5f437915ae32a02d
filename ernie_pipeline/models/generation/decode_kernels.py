"""The Triton kernels of `decode_ops`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl


@triton.jit
def add_norm(
    residual, branch, pairs, weights, norm, out, counts, epsilon, experts,
    W: tl.constexpr, SLOTS: tl.constexpr, BRANCH: tl.constexpr, COUNTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < W
    dtype = out.dtype.element_ty
    if COUNTS > 0:  # the router that comes next counts from zero
        number = tl.arange(0, COUNTS)
        tl.store(counts + number, 0, mask=(number < experts) & (row == 0))
    total = tl.load(residual + row * W + column, mask=inside, other=0.0).to(tl.float32)
    added = tl.zeros((BLOCK,), dtype=tl.float32)
    if SLOTS > 0:
        for slot in tl.static_range(SLOTS):
            weight = tl.load(weights + row * SLOTS + slot).to(tl.float32)
            pair = tl.load(pairs + (row * SLOTS + slot) * W + column, mask=inside, other=0.0)
            added += weight * pair.to(tl.float32)
        added = added.to(dtype).to(tl.float32)
    if BRANCH:
        added += tl.load(branch + row * W + column, mask=inside, other=0.0).to(tl.float32)
        added = added.to(dtype).to(tl.float32)
    total = (total + added).to(dtype)
    tl.store(residual + row * W + column, total, mask=inside)
    value = total.to(tl.float32)
    variance = tl.sum(value * value, axis=0) / W
    normed = (value * tl.rsqrt(variance + epsilon)).to(dtype).to(tl.float32)
    scale = tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * W + column, (scale * normed).to(dtype), mask=inside)


@triton.jit
def gated(gate_up, out, INNER: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < INNER
    gate = tl.load(gate_up + row * 2 * INNER + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * INNER + INNER + column, mask=inside, other=0.0).to(tl.float32)
    dtype = out.dtype.element_ty
    active = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32)
    tl.store(out + row * INNER + column, (active * up).to(dtype), mask=inside)


@triton.jit
def router_logits(
    hidden, weight, partial, rows, W,
    EXPERTS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    expert = tl.arange(0, BLOCK)
    step = tl.program_id(1) * PIECE + tl.arange(0, DEPTH)
    total = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for done in range(0, PIECE, DEPTH):
        deep = step + done < W
        left = hidden + row.to(tl.int64)[:, None] * W + (step + done)[None, :]
        x = tl.load(left, mask=(row < rows)[:, None] & deep[None, :], other=0.0).to(tl.float32)
        right = weight + expert[None, :] * W + (step + done)[:, None]
        w = tl.load(right, mask=(expert < EXPERTS)[None, :] & deep[:, None], other=0.0).to(tl.float32)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    place = (tl.program_id(1) * rows + row)[:, None] * EXPERTS + expert[None, :]
    tl.store(partial + place, total, mask=(row < rows)[:, None] & (expert < EXPERTS)[None, :])


@triton.jit
def choose_experts(
    partial, bias, experts, weights, counts, table, rows, least,
    EXPERTS: tl.constexpr, BLOCK: tl.constexpr, SLOTS: tl.constexpr, SLOT_BLOCK: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    inside = expert < EXPERTS
    logits = tl.zeros((BLOCK,), dtype=tl.float32)
    for piece in tl.static_range(PIECES):
        logits += tl.load(partial + (piece * rows + row) * EXPERTS + expert, mask=inside, other=0.0)
    logits = tl.where(inside, logits, -float("inf"))
    exponentials = tl.exp(logits - tl.max(logits, axis=0))
    probabilities = exponentials / tl.sum(exponentials, axis=0)
    score = probabilities + tl.load(bias + expert, mask=inside, other=0.0).to(tl.float32)
    score = tl.where(inside, score, -float("inf"))
    slot = tl.arange(0, SLOT_BLOCK)
    chosen = tl.zeros((SLOT_BLOCK,), dtype=tl.int32)
    weight = tl.zeros((SLOT_BLOCK,), dtype=tl.float32)
    for number in tl.static_range(SLOTS):
        best = tl.argmax(score, axis=0)
        own = tl.sum(tl.where(expert == best, probabilities, 0.0), axis=0)
        chosen = tl.where(slot == number, best, chosen)
        weight = tl.where(slot == number, own, weight)
        score = tl.where(expert == best, -float("inf"), score)
    weight /= tl.maximum(tl.sum(weight, axis=0), least)
    real = slot < SLOTS
    tl.store(experts + row * SLOTS + slot, chosen.to(tl.int64), mask=real)
    tl.store(weights + row * SLOTS + slot, weight.to(weights.dtype.element_ty), mask=real)
    # in which order an expert has its pairs is left to chance: no pair's result depends on the others
    place = tl.atomic_add(counts + chosen, 1, mask=real)
    tl.store(table + chosen * rows + place, row * SLOTS + slot, mask=real)


@triton.jit
def expert_product(
    source, weights, counts, table, out, experts, tokens, depth, columns,
    DIVISOR: tl.constexpr, GATED: tl.constexpr, EVEN: tl.constexpr,
    EXPERTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    # of fewer rows the weights are the left factor: the matrix units want 64 rows of that one, and 8 of the other
    SWAP: tl.constexpr = ROWS < 64
    across = tl.cdiv(columns, COLUMNS)
    tile = tl.program_id(0) // across  # those of a tile's rows, and then of an expert's, run at the same time
    number = tl.arange(0, EXPERTS)
    count = tl.load(counts + number, mask=number < experts, other=0)
    tiles = (count + ROWS - 1) // ROWS
    upto = tl.cumsum(tiles, axis=0)
    expert = tl.sum((upto <= tile).to(tl.int32), axis=0)
    if expert >= experts:  # more programs than tiles: how many there are only the device knows
        return
    own = number == expert
    first = (tile - tl.sum(tl.where(own, upto - tiles, 0), axis=0)) * ROWS
    row = first + tl.arange(0, ROWS)
    inside = row < tl.sum(tl.where(own, count, 0), axis=0)
    pair = tl.load(table + expert * tokens + row, mask=inside, other=0)
    column = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)
    step = tl.arange(0, DEPTH)
    height = 2 * columns if GATED else columns
    left = source + (pair // DIVISOR).to(tl.int64)[:, None] * depth + step[None, :]
    place = expert.to(tl.int64) * height + tl.minimum(column, columns - 1)
    right = weights + place[:, None] * depth + step[None, :]
    above = right + columns.to(tl.int64) * depth
    total = tl.zeros((COLUMNS, ROWS) if SWAP else (ROWS, COLUMNS), dtype=tl.float32)
    second = total
    for done in tl.range(0, depth, DEPTH, num_stages=STAGES):
        deep = step < depth - done
        x = tl.load(left + done) if EVEN else tl.load(left + done, mask=deep[None, :], other=0.0)
        w = tl.load(right + done) if EVEN else tl.load(right + done, mask=deep[None, :], other=0.0)
        total = tl.dot(w, tl.trans(x), total) if SWAP else tl.dot(x, tl.trans(w), total)
        if GATED:
            u = tl.load(above + done) if EVEN else tl.load(above + done, mask=deep[None, :], other=0.0)
            second = tl.dot(u, tl.trans(x), second) if SWAP else tl.dot(x, tl.trans(u), second)
    dtype = out.dtype.element_ty
    if GATED:  # rounded wherever the module's own operations round
        gate = total.to(dtype).to(tl.float32)
        active = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32)
        total = active * second.to(dtype).to(tl.float32)
    result = total.to(dtype)
    if SWAP:
        result = tl.trans(result)
    target = out + pair.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(target, result, mask=inside[:, None] & (column < columns)[None, :])


@triton.jit
def _rotated(at, inside, cos, sin):
    even = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(at + 1, mask=inside, other=0.0).to(tl.float32)
    return tl.interleave(even * cos - odd * sin, odd * cos + even * sin)


@triton.jit
def attend(
    qkv, cos, sin, positions, keys, values, out, scale, cache_row, cache_head, cos_stride,
    KV: tl.constexpr, GROUP: tl.constexpr, GROUP_BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0) // KV, tl.program_id(0) % KV
    dtype = keys.dtype.element_ty
    position = tl.load(positions + row).to(tl.int32)
    half, wide, query = tl.arange(0, WIDTH // 2), tl.arange(0, WIDTH), tl.arange(0, GROUP_BLOCK)
    c = tl.load(cos + row * cos_stride + half)
    s = tl.load(sin + row * cos_stride + half)
    own = qkv + row.to(tl.int64) * (GROUP + 2) * KV * WIDTH
    real = (query < GROUP)[:, None]
    at = own + (head * GROUP + query)[:, None] * WIDTH + 2 * half[None, :]
    q = _rotated(at, real, c[None, :], s[None, :]).to(dtype)
    cache = row.to(tl.int64) * cache_row + head * cache_head
    # the new key and value, from where they are made
    new = own + (KV * GROUP + head) * WIDTH
    k_new = _rotated(new + 2 * half, half >= 0, c, s).to(dtype)
    v_new = tl.load(new + KV * WIDTH + wide)
    tl.store(keys + cache + position.to(tl.int64) * WIDTH + wide, k_new)
    tl.store(values + cache + position.to(tl.int64) * WIDTH + wide, v_new)
    highest = tl.sum(q.to(tl.float32) * k_new.to(tl.float32)[None, :], axis=1) * scale
    weight = tl.full((GROUP_BLOCK,), 1.0, dtype=tl.float32)
    total = tl.zeros((GROUP_BLOCK, WIDTH), dtype=tl.float32) + v_new.to(tl.float32)[None, :]
    for start in tl.range(0, position, COLUMNS, num_stages=STAGES):
        column = start + tl.arange(0, COLUMNS)
        inside = column < position
        place = cache + column[:, None] * WIDTH + wide[None, :]
        k = tl.load(keys + place, mask=inside[:, None], other=0.0)
        v = tl.load(values + place, mask=inside[:, None], other=0.0)
        scores = tl.where(inside[None, :], tl.dot(q, tl.trans(k)) * scale, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        probabilities = tl.exp2(scores - higher[:, None])
        kept = tl.exp2(highest - higher)
        weight = weight * kept + tl.sum(probabilities, axis=1)
        total = tl.dot(probabilities.to(dtype), v, total * kept[:, None])
        highest = higher
    place = (row * KV + head) * GROUP + query
    tl.store(out + place[:, None] * WIDTH + wide[None, :], (total / weight[:, None]).to(dtype), mask=real)


@triton.jit
def _looked_up(start, index, INLINE: tl.constexpr):
    """Of a small table in fp32. Written out, so that the compiler does not fetch it ahead by way of shared memory."""
    if INLINE:
        return tl.inline_asm_elementwise(
            "ld.global.nc.f32 $0, [$1];", "=f,l", [(start + index).to(tl.int64)], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.load(start + index)


@triton.jit
def _dequantized(at, block, absmax, code2, absmax2, shift, code, BLOCK2: tl.constexpr, INLINE: tl.constexpr):
    both = tl.load(at).to(tl.int32)
    inner = tl.load(absmax + block).to(tl.int32)
    scale = _looked_up(code2, inner, INLINE) * _looked_up(absmax2, block // BLOCK2, INLINE) + shift
    high = _looked_up(code, both >> 4, INLINE) * scale[:, None]
    low = _looked_up(code, both & 15, INLINE) * scale[:, None]
    return high, low


@triton.jit
def quantized_product(
    source, quantized, absmax, code2, absmax2, offset, code, counts, table, lowered, lora, out,
    experts, tokens, depth, columns,
    DIVISOR: tl.constexpr, GATED: tl.constexpr, RANK: tl.constexpr, BLOCK2: tl.constexpr,
    EXPERTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr, INLINE: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = 32  # bytes of a block of 64 values, which share a constant
    across = tl.cdiv(columns, COLUMNS)
    tile = tl.program_id(0) // across
    number = tl.arange(0, EXPERTS)
    count = tl.load(counts + number, mask=number < experts, other=0)
    tiles = (count + ROWS - 1) // ROWS
    upto = tl.cumsum(tiles, axis=0)
    expert = tl.sum((upto <= tile).to(tl.int32), axis=0)
    if expert >= experts:
        return
    own = number == expert
    first = (tile - tl.sum(tl.where(own, upto - tiles, 0), axis=0)) * ROWS
    row = first + tl.arange(0, ROWS)
    inside = row < tl.sum(tl.where(own, count, 0), axis=0)
    pair = tl.load(table + expert * tokens + row, mask=inside, other=0)
    column = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)
    height = 2 * columns if GATED else columns
    place = expert.to(tl.int64) * height + tl.minimum(column, columns - 1)
    byte = tl.arange(0, HALF)
    left = source + (pair // DIVISOR).to(tl.int64)[:, None] * depth + byte[None, :]
    right = quantized + (place * (depth // 2))[:, None] + byte[None, :]
    block = place * (depth // 64)
    above = columns.to(tl.int64) * (depth // 2)
    block_above = columns.to(tl.int64) * (depth // 64)
    shift = tl.load(offset).to(tl.float32)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    second = total
    for done in tl.range(0, depth // 64, 1, num_stages=STAGES):
        even = tl.trans(tl.load(left + done * HALF))
        odd = tl.trans(tl.load(left + done * HALF + depth // 2))
        high, low = _dequantized(right + done * HALF, block + done, absmax, code2, absmax2, shift, code, BLOCK2, INLINE)
        total = tl.dot(high.to(out.dtype.element_ty), even, total)
        total = tl.dot(low.to(out.dtype.element_ty), odd, total)
        if GATED:
            high, low = _dequantized(
                right + above + done * HALF,
                block + block_above + done,
                absmax,
                code2,
                absmax2,
                shift,
                code,
                BLOCK2,
                INLINE,
            )
            second = tl.dot(high.to(out.dtype.element_ty), even, second)
            second = tl.dot(low.to(out.dtype.element_ty), odd, second)
    dtype = out.dtype.element_ty
    if RANK > 0:  # B times what A gave, in further columns as it were
        rank = tl.arange(0, RANK)
        width = 2 * RANK if GATED else RANK
        given = lowered + pair.to(tl.int64)[:, None] * width + rank[None, :]
        at = lora + (place * RANK)[:, None] + rank[None, :]
        total = tl.dot(tl.load(at), tl.trans(tl.load(given)), total)
        if GATED:
            second = tl.dot(tl.load(at + columns.to(tl.int64) * RANK), tl.trans(tl.load(given + RANK)), second)
    if GATED:
        gate = total.to(dtype).to(tl.float32)
        active = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32)
        total = active * second.to(dtype).to(tl.float32)
    # even columns first, then the odd ones, as the next product wants them
    spot = (column % 2) * (columns // 2) + column // 2 if GATED else column
    target = out + pair.to(tl.int64)[:, None] * columns + spot[None, :]
    tl.store(target, tl.trans(total.to(dtype)), mask=inside[:, None] & (column < columns)[None, :])


@triton.jit
def nucleus(probabilities, out, top_p, vocabulary, BITS: tl.constexpr, BLOCK: tl.constexpr):
    own = tl.program_id(0).to(tl.int64) * vocabulary
    spot = tl.arange(0, BLOCK)
    least = tl.program_id(0) * 0
    for taken in range(2, BITS + 1, 2):  # two bits at a time, as each pass takes as long as reading does
        part = 1 << (BITS - taken)
        first = tl.zeros((BLOCK,), dtype=tl.float32)
        second, third = first, first
        for start in range(0, vocabulary, BLOCK):
            value = tl.load(probabilities + own + start + spot, mask=start + spot < vocabulary, other=0.0)
            bits = value.to(tl.int32, bitcast=True) - least
            first += tl.where(bits >= part, value, 0.0)
            second += tl.where(bits >= 2 * part, value, 0.0)
            third += tl.where(bits >= 3 * part, value, 0.0)
        least += part * (tl.sum(first, axis=0) >= top_p).to(tl.int32)
        least += part * (tl.sum(second, axis=0) >= top_p).to(tl.int32)
        least += part * (tl.sum(third, axis=0) >= top_p).to(tl.int32)
    above = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, vocabulary, BLOCK):
        value = tl.load(probabilities + own + start + spot, mask=start + spot < vocabulary, other=0.0)
        above += tl.where(value.to(tl.int32, bitcast=True) > least, value, 0.0)
    before = tl.sum(above, axis=0)
    for start in range(0, vocabulary, BLOCK):
        value = tl.load(probabilities + own + start + spot, mask=start + spot < vocabulary, other=0.0)
        bits = value.to(tl.int32, bitcast=True)
        equal = (bits == least).to(tl.int32)
        reached = before + (tl.cumsum(equal, axis=0) - equal).to(tl.float32) * value
        kept = (bits > least) | ((bits == least) & (reached < top_p))
        tl.store(out + own + start + spot, tl.where(kept, value, 0.0), mask=start + spot < vocabulary)
        before += tl.sum(tl.where(bits == least, value, 0.0), axis=0)
