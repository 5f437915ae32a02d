"""Grouped products that read NF4 weights as bitsandbytes lays them out, dequantized on the way to the matrix units.

Candidates, measured by `expert_products.py`. The two values of a byte are kept apart: a product over K inputs
is one over the even ones (upper four bits) and one over the odd ones (lower), so nothing is interleaved in the loop.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl

BLOCK = 64
"""Values that share a constant."""
TABLE, BYTES, BYTES_THEN_FLOAT = 0, 1, 2
"""How a value is looked up: fp32 from memory; bf16 by byte permutation, times a bf16 constant; or times an fp32 one."""


def _halves(values: list[float]) -> tuple[list[int], list[int]]:
    """The lower and the upper bytes of 16 bf16 values, as four 32-bit words each."""
    import torch

    bits = [int(v) & 0xFFFF for v in torch.tensor(values).bfloat16().view(torch.int16)]
    words = [[sum((bits[4 * w + i] >> shift & 255) << 8 * i for i in range(4)) for w in range(4)] for shift in (0, 8)]
    return words[0], words[1]


NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def _asm(scaled: bool) -> str:
    """Four bytes to eight bf16 values, those of the upper four bits first; `scaled`: times the four bf16 after them."""
    low, high = _halves(NF4)
    byte, scale = "$4", ("$5", "$6")
    lines = ["{", ".reg .b32 s, t, m, a, b, h, l;", f"and.b32 s, {byte}, 0x77777777;"]
    lines += [f"shr.b32 t, {byte}, 3;", "and.b32 t, t, 0x11111111;"]
    for half in range(2):
        if half:
            lines += ["shr.b32 s, s, 16;", "shr.b32 t, t, 16;"]
        lines += ["prmt.b32 m, 0xff00, 0, t;"]
        for name, words in (("l", low), ("h", high)):
            lines += [f"prmt.b32 a, {words[0]:#x}, {words[1]:#x}, s;", f"prmt.b32 b, {words[2]:#x}, {words[3]:#x}, s;"]
            lines += [f"lop3.b32 {name}, m, b, a, 0xCA;"]
        lines += [f"prmt.b32 ${half}, l, h, 0x7351;", f"prmt.b32 ${half + 2}, l, h, 0x6240;"]
        if scaled:
            lines += [f"mul.rn.bf16x2 ${out}, ${out}, {scale[half]};" for out in (half, half + 2)]
    return "\n".join([*lines, "}"])


CODES = tl.constexpr(_asm(scaled=False))
SCALED = tl.constexpr(_asm(scaled=True))


@triton.jit
def constants(absmax, code2, absmax2, offset, block, inside):
    inner = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
    outer = tl.load(absmax2 + (block >> 8), mask=inside, other=0.0)
    return tl.load(code2 + inner) * outer + tl.load(offset)


@triton.jit
def values(both, scale, code, dtype: tl.constexpr, LOOKUP: tl.constexpr):
    """The values of the upper and of the lower four bits of `both`, in bf16 (`LOOKUP` 0: any); `scale` is as large."""
    if LOOKUP == 0:
        index = both.to(tl.int32)
        high = (tl.load(code + (index >> 4)) * scale).to(dtype)
        low = (tl.load(code + (index & 15)) * scale).to(dtype)
    elif LOOKUP == 1:
        high, low = tl.inline_asm_elementwise(
            SCALED, "=&r,=&r,=&r,=&r,r,r,r", [both, scale.to(tl.bfloat16)],
            dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4,
        )  # fmt: skip
    else:
        high, low = tl.inline_asm_elementwise(
            CODES, "=&r,=&r,=&r,=&r,r", [both], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4
        )
        high = (high.to(tl.float32) * scale).to(tl.bfloat16)
        low = (low.to(tl.float32) * scale).to(tl.bfloat16)
    return high, low


@triton.jit
def spread(scale, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """[ROWS, BLOCKS] as [ROWS, 32 * BLOCKS], a constant for each byte."""
    return tl.reshape(tl.broadcast_to(scale[:, :, None], (ROWS, BLOCKS, 32)), (ROWS, BLOCKS * 32))


@triton.jit
def place(ends, tile, EXPERTS: tl.constexpr, ROWS: tl.constexpr):
    """The expert of a tile of rows, its first row, and the row after its expert's last; expert EXPERTS: none."""
    number = tl.arange(0, EXPERTS)
    end = tl.load(ends + number)
    start = tl.load(ends + number - 1, mask=number > 0, other=0)
    tiles = (end - start + ROWS - 1) // ROWS
    upto = tl.cumsum(tiles, axis=0)
    expert = tl.sum((upto <= tile).to(tl.int32), axis=0)
    own = number == expert
    first = tl.sum(tl.where(own, start + (tile - upto + tiles) * ROWS, 0), axis=0)
    return expert, first, tl.sum(tl.where(own, end, 0), axis=0)


@triton.jit
def forward(
    rows, packed, absmax, code2, absmax2, offset, code, ends, out,
    N: tl.constexpr, K: tl.constexpr, EXPERTS: tl.constexpr, LOOKUP: tl.constexpr, SWAP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """out[row, n] = sum over k of rows[row, k] W[n, k]; of each STEP inputs `rows` has the even ones first."""
    HALF: tl.constexpr = STEP // 2
    BLOCKS: tl.constexpr = STEP // 64
    across: tl.constexpr = N // COLUMNS
    expert, first, end = place(ends, tl.program_id(0) // across, EXPERTS, ROWS)
    if expert >= EXPERTS:
        return
    row = first + tl.arange(0, ROWS)
    inside = row < end
    column = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)
    flat = expert.to(tl.int64) * N + column
    even = rows + row.to(tl.int64)[:, None] * K + tl.arange(0, HALF)[None, :]
    bytes_ = packed + flat[:, None] * (K // 2) + tl.arange(0, HALF)[None, :]
    block = flat[:, None] * (K // 64) + tl.arange(0, BLOCKS)[None, :]
    if SWAP:  # noqa: SIM108 (Triton)
        total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    else:
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for k in range(0, K, STEP):
        x_even = tl.load(even + k, mask=inside[:, None], other=0.0)
        x_odd = tl.load(even + k + HALF, mask=inside[:, None], other=0.0)
        both = tl.load(bytes_ + k // 2)
        scale = constants(absmax, code2, absmax2, offset, block + k // 64, block >= 0)
        high, low = values(both, spread(scale, COLUMNS, BLOCKS), code, rows.dtype.element_ty, LOOKUP)
        if SWAP:
            total = tl.dot(high, tl.trans(x_even), total, input_precision="ieee")
            total = tl.dot(low, tl.trans(x_odd), total, input_precision="ieee")
        else:
            total = tl.dot(x_even, tl.trans(high), total, input_precision="ieee")
            total = tl.dot(x_odd, tl.trans(low), total, input_precision="ieee")
    if SWAP:
        target = out + row.to(tl.int64)[None, :] * N + column[:, None]
        tl.store(target, total.to(out.dtype.element_ty), mask=inside[None, :])
    else:
        target = out + row.to(tl.int64)[:, None] * N + column[None, :]
        tl.store(target, total.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit
def backward(
    rows, packed, absmax, code2, absmax2, offset, code, ends, out,
    N: tl.constexpr, K: tl.constexpr, EXPERTS: tl.constexpr, LOOKUP: tl.constexpr, SWAP: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """out[row, k] = sum over n of rows[row, n] W[n, k]."""
    HALF: tl.constexpr = COLUMNS // 2
    BLOCKS: tl.constexpr = COLUMNS // 64
    across: tl.constexpr = K // COLUMNS
    expert, first, end = place(ends, tl.program_id(0) // across, EXPERTS, ROWS)
    if expert >= EXPERTS:
        return
    row = first + tl.arange(0, ROWS)
    inside = row < end
    group = tl.program_id(0) % across
    n = tl.arange(0, STEP)
    flat = expert.to(tl.int64) * N + n
    grad = rows + row.to(tl.int64)[:, None] * N + n[None, :]
    bytes_ = packed + flat[:, None] * (K // 2) + group * HALF + tl.arange(0, HALF)[None, :]
    block = flat[:, None] * (K // 64) + group * BLOCKS + tl.arange(0, BLOCKS)[None, :]
    even = tl.zeros((ROWS, HALF), dtype=tl.float32)
    odd = tl.zeros((ROWS, HALF), dtype=tl.float32)
    for done in range(0, N, STEP):
        g = tl.load(grad + done, mask=inside[:, None], other=0.0)
        both = tl.load(bytes_ + done * (K // 2))
        scale = constants(absmax, code2, absmax2, offset, block + done * (K // 64), block >= 0)
        high, low = values(both, spread(scale, STEP, BLOCKS), code, rows.dtype.element_ty, LOOKUP)
        even = tl.dot(g, high, even, input_precision="ieee")
        odd = tl.dot(g, low, odd, input_precision="ieee")
    column = group * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.interleave(even, odd).to(out.dtype.element_ty)
    tl.store(out + row.to(tl.int64)[:, None] * K + column[None, :], total, mask=inside[:, None])
