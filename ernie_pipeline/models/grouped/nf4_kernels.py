"""The Triton kernel of `nf4_mm`, which reads the 4-bit weights in the product; imported where Triton is."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl

from ernie_pipeline.models.grouped.kernels import tile_of_expert

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Dettmers et al. 2023, "QLoRA", appendix E."""


def _lookup() -> str:
    """PTX: four bytes, and their constant twice in bf16, to four registers: a byte's two values in bf16, times the
    constant.

    A table of 16 values is two of bytes, upper and lower, of four registers each. `prmt` looks four codes up in two of
    them; a mask of each code's highest bit says which two. `prmt` makes the mask as well, as it can spread a byte's
    highest bit over a byte: an odd code's lies there, an even one's once all are shifted by a code.
    """
    import torch

    bits = [int(v) & 0xFFFF for v in torch.tensor(NF4).bfloat16().view(torch.int16)]
    tables = [[sum((bits[4 * w + i] >> shift & 255) << 8 * i for i in range(4)) for w in range(4)] for shift in (0, 8)]
    lines = ["{", ".reg .b32 s, t, m, a, b, h, l;", "and.b32 s, $4, 0x77777777;", "shl.b32 t, $4, 4;"]
    for half, spread in enumerate((0x9D8C, 0xBFAE)):
        if half:
            lines += ["shr.b32 s, s, 16;"]
        lines += [f"prmt.b32 m, $4, t, {spread:#x};"]
        for name, words in zip("lh", tables, strict=True):
            lines += [f"prmt.b32 a, {words[0]:#x}, {words[1]:#x}, s;", f"prmt.b32 b, {words[2]:#x}, {words[3]:#x}, s;"]
            lines += [f"lop3.b32 {name}, m, b, a, 0xCA;"]
        for out, place in ((2 * half, 0x4051), (2 * half + 1, 0x6273)):  # the earlier value is in the high bits
            lines += [f"prmt.b32 ${out}, l, h, {place:#x};", f"mul.rn.bf16x2 ${out}, ${out}, $5;"]
    return "\n".join([*lines, "}"])


LOOKUP = tl.constexpr(_lookup())


@triton.jit
def constants(
    absmax, code2, absmax2, offset, out,
    OUTPUTS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK2: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of each block of 64 values its constant in bf16, twice: what a pair of values is multiplied by.

    From [experts, OUTPUTS, BLOCKS] to [experts, BLOCKS, OUTPUTS]: what the products read at a time lies together.
    """
    expert = tl.program_id(1).to(tl.int64) * OUTPUTS * BLOCKS
    output = (tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT))[:, None]
    block = tl.arange(0, WIDTH)[None, :]
    inside = block < BLOCKS
    place = expert + output * BLOCKS + block
    inner = tl.load(absmax + place, mask=inside, other=0).to(tl.int32)
    value = tl.load(code2 + inner) * tl.load(absmax2 + place // BLOCK2, mask=inside, other=0.0) + tl.load(offset)
    bits = value.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.int32)
    tl.store(out + expert + block * OUTPUTS + output, bits | (bits << 16), mask=inside)


@triton.jit
def _values(
    packed, scales, code, output, first, dtype: tl.constexpr,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ASSEMBLY: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS] of an expert's weights: from an output and from an input on; COLUMNS are blocks of 64."""
    BLOCKS: tl.constexpr = COLUMNS // 64
    row = (output + tl.arange(0, ROWS))[:, None]
    both = tl.load(packed + (row * (INPUTS // 2) + first // 2 + tl.arange(0, COLUMNS // 2)[None, :]))
    scale = tl.load(scales + ((first // 64 + tl.arange(0, BLOCKS)[None, :]) * OUTPUTS + row))
    scale = tl.reshape(tl.broadcast_to(scale[:, :, None], (ROWS, BLOCKS, 32)), (ROWS, COLUMNS // 2))
    if ASSEMBLY:
        pair = tl.inline_asm_elementwise(
            LOOKUP, "=&r,=&r,=&r,=&r,r,r,r,r,r", [both, scale], dtype=tl.int32, is_pure=True, pack=4
        )
        even = pair.to(tl.int16).to(tl.bfloat16, bitcast=True)
        odd = (pair >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        index, constant = both.to(tl.int32), (scale & -65536).to(tl.float32, bitcast=True)
        even = (tl.load(code + (index >> 4)) * constant).to(dtype)
        odd = (tl.load(code + (index & 15)) * constant).to(dtype)
    return tl.interleave(even, odd)


@triton.jit
def _low_rank(
    own, inside, lora, column, DEEP: tl.constexpr, WIDE: tl.constexpr, RANK: tl.constexpr,
    BACKWARD: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """What the adapter adds to the product: with it the sum begins."""
    total = tl.zeros((own.shape[0], column.shape[0]), dtype=tl.float32)
    for first in tl.static_range(0, RANK, RANKS):
        rank = first + tl.arange(0, RANKS)
        x = tl.load(own + DEEP + rank[None, :], mask=inside & (rank < RANK)[None, :], other=0.0)
        places = rank[:, None] * WIDE + column[None, :] if BACKWARD else rank[:, None] + column[None, :] * RANK
        w = tl.load(lora + places, mask=(rank < RANK)[:, None], other=0.0)
        total = tl.dot(x, w, total, input_precision="ieee")
    return total


@triton.jit
def _product(
    pointers, number, start,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, RANK: tl.constexpr, STRIDE: tl.constexpr, BACKWARD: tl.constexpr,
    ASSEMBLY: tl.constexpr, ROWS: tl.constexpr, MORE: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """Of the first `number` of ROWS rows and, by the same decoded weights, of MORE behind them."""
    rows, packed, scales, code, lora, out = pointers
    DEEP: tl.constexpr = OUTPUTS if BACKWARD else INPUTS
    WIDE: tl.constexpr = INPUTS if BACKWARD else OUTPUTS
    dtype: tl.constexpr = rows.dtype.element_ty
    step, column = tl.arange(0, DEPTH)[None, :], start + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)[:, None]
    own, inside = rows + row * STRIDE, row < number
    total = _low_rank(own, inside, lora, column, DEEP, WIDE, RANK, BACKWARD, RANKS)
    if MORE:
        row2 = ROWS + tl.arange(0, MORE)[:, None]
        own2, inside2 = rows + row2 * STRIDE, row2 < number
        total2 = _low_rank(own2, inside2, lora, column, DEEP, WIDE, RANK, BACKWARD, RANKS)
    for done in range(0, DEEP, DEPTH):
        x = tl.load(own + (done + step), mask=inside, other=0.0)
        if BACKWARD:
            w = _values(packed, scales, code, done, start, dtype, OUTPUTS, INPUTS, DEPTH, COLUMNS, ASSEMBLY)
        else:
            w = tl.trans(_values(packed, scales, code, start, done, dtype, OUTPUTS, INPUTS, COLUMNS, DEPTH, ASSEMBLY))
        total = tl.dot(x, w, total, input_precision="ieee")
        if MORE:
            x2 = tl.load(own2 + (done + step), mask=inside2, other=0.0)
            total2 = tl.dot(x2, w, total2, input_precision="ieee")
    tl.store(out + (row * WIDE + column[None, :]), total.to(dtype), mask=inside)
    if MORE:
        tl.store(out + (row2 * WIDE + column[None, :]), total2.to(dtype), mask=inside2)


@triton.jit
def nf4_mm(
    rows, packed, scales, code, lora, ends, out, experts,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, RANK: tl.constexpr, STRIDE: tl.constexpr, EXPERTS: tl.constexpr,
    BACKWARD: tl.constexpr, ASSEMBLY: tl.constexpr,
    UNITS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """A program's tile has up to UNITS times 64 rows, and as many of these 64 as its expert has rows for."""
    WIDE: tl.constexpr = INPUTS if BACKWARD else OUTPUTS
    tile, start = tl.program_id(0) // (WIDE // COLUMNS), tl.program_id(0) % (WIDE // COLUMNS) * COLUMNS
    expert, first, end = tile_of_expert(ends, tile, experts, EXPERTS, 64 * UNITS)
    if expert >= experts:  # more programs than tiles: how many there are only the device knows
        return
    # offsets from here on fit in 32 bits, and with constant strides into the instructions: no register is spilled
    row, own = first.to(tl.int64), expert.to(tl.int64)
    pointers = (
        rows + row * STRIDE, packed + own * (OUTPUTS * INPUTS // 2), scales + own * (OUTPUTS * INPUTS // 64),
        code, lora + own * (WIDE * RANK), out + row * WIDE,
    )  # fmt: skip
    for units in tl.static_range(1, UNITS + 1):
        if end - first <= 64 * units or units == UNITS:
            _product(
                pointers, end - first, start, OUTPUTS, INPUTS, RANK, STRIDE, BACKWARD, ASSEMBLY,
                64 * min(units, 2), 64 * max(units - 2, 0), COLUMNS, DEPTH, RANKS,
            )  # fmt: skip
            return  # and not one after the other: the compiler would keep more in registers
