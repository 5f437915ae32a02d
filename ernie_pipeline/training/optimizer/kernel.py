"""The Triton kernel of `adamw_8bit`; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl

DECADES = tl.constexpr(7)
"""Of the codes, from 1e-7 to 1: each has twice the values of the one below it."""


@triton.jit
def _magnitude(x, FIRST: tl.constexpr):
    """The number of the code nearest to x, 0 to 1: in decade i, of n = FIRST * 2^i values, n and those below x's.

    Its values are the middles of n equal parts of 0.1 to 1, times 10^(i - 6); so the boundary between two neighbours
    is where their parts meet, and between decades half way between their last and first. Above all is 1; below, 0.
    """
    slope = tl.zeros(x.shape, tl.float32)
    number = tl.zeros(x.shape, tl.float32)
    for i in tl.static_range(DECADES):
        n = FIRST * 2**i
        unit = 10.0 ** (i - 6)
        last_below = 0.0 if i == 0 else unit * (0.1 - 0.09 / n)
        first = unit * (0.1 + 0.45 / n)
        above = x > (last_below + first) / 2
        slope = tl.where(above, n / 0.9 / unit, slope)
        number = tl.where(above, n * 1.0, number)
    place = tl.floor(x * slope + number * (8.0 / 9.0))
    place = tl.maximum(tl.minimum(place, 2 * number - 1), number)
    top = FIRST * 2**DECADES
    return tl.where(x > 1 - 0.45 / top, top * 1.0, place).to(tl.int32)


@triton.jit
def _scaled(state, largest):
    """[blocks, 256] between -1 and 1, for the `largest` [blocks] of each."""
    return state / tl.where(largest > 0, largest, 1.0)[:, None]


@triton.jit
def adamw_8bit(
    values, gradients, codes1, codes2, map1, map2, absmax1, absmax2, size, beta1, beta2, eps, step_size, decay,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """`eps` is what bias correction makes of it, `step_size` and `decay` too: see `AdamW8bit`."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    place = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside, within = place < size, block * BLOCK < size
    g = tl.load(gradients + place, mask=inside, other=0.0)
    first = tl.load(map1 + tl.load(codes1 + place, mask=inside, other=0).to(tl.int32))
    second = tl.load(map2 + tl.load(codes2 + place, mask=inside, other=0).to(tl.int32))
    first *= tl.load(absmax1 + block, mask=within, other=0.0)[:, None]
    second *= tl.load(absmax2 + block, mask=within, other=0.0)[:, None]
    first = tl.where(inside, first * beta1 + (1 - beta1) * g, 0.0)
    second = tl.where(inside, second * beta2 + (1 - beta2) * g * g, 0.0)
    value = tl.load(values + place, mask=inside, other=0.0)
    value = (value - step_size * (first / (tl.sqrt(second) + eps))) * decay
    tl.store(values + place, value, mask=inside)
    largest1, largest2 = tl.max(tl.abs(first), axis=1), tl.max(second, axis=1)
    tl.store(absmax1 + block, largest1, mask=within)
    tl.store(absmax2 + block, largest2, mask=within)
    number = _magnitude(tl.abs(_scaled(first, largest1)), 1)
    # what is negative stays so: the code of 0 is that of what is positive and next to nothing
    negative = 127 - tl.minimum(tl.maximum(number, 1), 127)
    tl.store(codes1 + place, tl.where(first < 0, negative, 127 + number).to(tl.uint8), mask=inside)
    number = _magnitude(_scaled(second, largest2), 2)
    tl.store(codes2 + place, tl.maximum(number - 1, 0).to(tl.uint8), mask=inside)
