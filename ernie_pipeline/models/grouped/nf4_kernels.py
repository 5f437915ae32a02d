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
    them; a mask of each code's highest bit says which two.
    """
    import torch

    bits = [int(v) & 0xFFFF for v in torch.tensor(NF4).bfloat16().view(torch.int16)]
    tables = [[sum((bits[4 * w + i] >> shift & 255) << 8 * i for i in range(4)) for w in range(4)] for shift in (0, 8)]
    lines = ["{", ".reg .b32 s, t, m, a, b, h, l;", "and.b32 s, $4, 0x77777777;"]
    lines += ["shr.b32 t, $4, 3;", "and.b32 t, t, 0x11111111;"]
    for half in range(2):
        if half:
            lines += ["shr.b32 s, s, 16;", "shr.b32 t, t, 16;"]
        lines += ["prmt.b32 m, 0xff00, 0, t;"]
        for name, words in zip("lh", tables, strict=True):
            lines += [f"prmt.b32 a, {words[0]:#x}, {words[1]:#x}, s;", f"prmt.b32 b, {words[2]:#x}, {words[3]:#x}, s;"]
            lines += [f"lop3.b32 {name}, m, b, a, 0xCA;"]
        for out, place in ((2 * half, 0x4051), (2 * half + 1, 0x6273)):  # the earlier value is in the high bits
            lines += [f"prmt.b32 ${out}, l, h, {place:#x};", f"mul.rn.bf16x2 ${out}, ${out}, $5;"]
    return "\n".join([*lines, "}"])


LOOKUP = tl.constexpr(_lookup())


@triton.jit
def constants(absmax, code2, absmax2, offset, out, blocks, BLOCK2: tl.constexpr, BLOCK: tl.constexpr):
    """Of each block of 64 values its constant in bf16, twice: what a pair of values is multiplied by."""
    block = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = block < blocks
    inner = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
    value = tl.load(code2 + inner) * tl.load(absmax2 + block // BLOCK2, mask=inside, other=0.0) + tl.load(offset)
    bits = value.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.int32)
    tl.store(out + block, bits | (bits << 16), mask=inside)


@triton.jit
def _values(
    packed, scales, code, row, first, dtype: tl.constexpr,
    INPUTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ASSEMBLY: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS] of the weights: rows `row`, from column `first` on; COLUMNS are blocks of 64."""
    BLOCKS: tl.constexpr = COLUMNS // 64
    both = tl.load(packed + row[:, None] * (INPUTS // 2) + first // 2 + tl.arange(0, COLUMNS // 2)[None, :])
    scale = tl.load(scales + row[:, None] * (INPUTS // 64) + first // 64 + tl.arange(0, BLOCKS)[None, :])
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
def nf4_mm(
    rows, packed, scales, code, lora, ends, out, experts, rows_stride,
    lora_expert_stride, lora_rank_stride, lora_column_stride, out_stride,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, RANK: tl.constexpr, EXPERTS: tl.constexpr, BACKWARD: tl.constexpr,
    ASSEMBLY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    deep: tl.constexpr = OUTPUTS if BACKWARD else INPUTS
    across: tl.constexpr = (INPUTS if BACKWARD else OUTPUTS) // COLUMNS
    expert, first, end = tile_of_expert(ends, tl.program_id(0) // across, experts, EXPERTS, ROWS)
    if expert >= experts:  # more programs than tiles: how many there are only the device knows
        return
    row = first + tl.arange(0, ROWS)
    inside = (row < end)[:, None]
    own = rows + row.to(tl.int64)[:, None] * rows_stride
    start = (tl.program_id(0) % across) * COLUMNS
    column = start + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for narrow in tl.static_range(0, RANK, RANKS):
        rank = narrow + tl.arange(0, RANKS)
        low_rank = tl.load(own + deep + rank[None, :], mask=inside & (rank < RANK)[None, :], other=0.0)
        places = lora + expert.to(tl.int64) * lora_expert_stride
        places += rank[:, None] * lora_rank_stride + column[None, :] * lora_column_stride
        adapter = tl.load(places, mask=(rank < RANK)[:, None], other=0.0)
        total = tl.dot(low_rank, adapter, total, input_precision="ieee")
    step = tl.arange(0, DEPTH)
    output = expert.to(tl.int64) * OUTPUTS
    dtype: tl.constexpr = rows.dtype.element_ty
    for done in range(0, deep, DEPTH):
        x = tl.load(own + (done + step)[None, :], mask=inside, other=0.0)
        if BACKWARD:
            w = _values(packed, scales, code, output + done + step, start, dtype, INPUTS, DEPTH, COLUMNS, ASSEMBLY)
        else:
            w = _values(packed, scales, code, output + column, done, dtype, INPUTS, COLUMNS, DEPTH, ASSEMBLY)
            w = tl.trans(w)
        total = tl.dot(x, w, total, input_precision="ieee")
    tl.store(out + row.to(tl.int64)[:, None] * out_stride + column[None, :], total.to(dtype), mask=inside)
