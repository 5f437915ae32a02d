"""The product of each expert's rows with its weights in 8-bit floats: faster on Hopper's matrix units, and less exact.

Both factors are rounded to e4m3, with 3 bits of mantissa (Micikevicius et al. 2022, "FP8 Formats for Deep Learning"):
each row of the left one by a scale of its own, its largest value over 448, and a stack's weights by one, as they lie
close together and the format has exponents. The adapter's values are not rounded to so few bits: each factor of theirs
is two such numbers, the value and what rounding leaves of it, and three products of them stand in further columns:
[x, u1, u2, u1] [W, b1, b1, b2]' = x W' + (u1 + u2) (b1 + b2)' - u2 b2', whose last term is a 256th of a 256th.
"""

from copy import copy
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.grouped.dequantize import blocks, dequantize, operands
from ernie_pipeline.models.grouped.grouped_mm import grouped_mm
from ernie_pipeline.models.memory import round_up

try:
    import triton

    from ernie_pipeline.models.grouped import fp8_kernels
    from ernie_pipeline.models.grouped.kernels import tile_size
except ImportError:  # no CUDA build of torch
    triton = None

FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max
ALIGNED = 16
"""Bytes of which the length of a factor's rows has to be a multiple."""
HEIGHT, BLOCKS = 128, 1
"""Outputs and blocks of inputs that a program turns."""
ADAPTER_HEIGHT = 32
"""Rows of weights behind which a program writes the adapter's values."""
CAPABILITY = (9, 0)
"""That of the cards for which torch has the product (torch 2.11)."""


def what_fp8_lacks(weight: Any) -> str:
    """Why products of a quantized stack cannot be made in 8-bit floats here, as the end of a sentence; "" if they
    can. Without a GPU torch's operations round in the same way, slowly."""
    _, outputs, inputs = weight.quant_state.shape
    if inputs % weight.quant_state.blocksize or inputs % ALIGNED or outputs % ALIGNED:
        return f"needs weights of multiples of {ALIGNED} outputs and inputs, and an expert's are {outputs} x {inputs}"
    if weight.is_cuda and (found := torch.cuda.get_device_capability(weight.device)) != CAPABILITY:
        return f"needs a Hopper GPU (compute capability 9.0), and this one's is {found[0]}.{found[1]}"
    if weight.is_cuda and weight.quant_state.dtype != torch.bfloat16:
        return "gives bfloat16, and quantization.compute_dtype is another"
    return ""


def fp8_mm(
    rows: torch.Tensor, weight: Any, lora: torch.Tensor, ends: torch.Tensor, *, backward: bool = False
) -> torch.Tensor:
    """As `nf4_mm`: [rows, outputs], for each expert rows[:, :inputs] W' + rows[:, inputs:] lora', in 8-bit floats.

    All experts' weights and adapters share a scale: an adapter whose B has values far above those of the weights, by
    more than the 2^15 of the format's normal numbers, would leave these less than three bits.
    """
    experts, outputs, inputs = weight.quant_state.shape
    depth = outputs if backward else inputs
    lora = lora.transpose(1, 2) if backward else lora
    factor = torch.maximum(largest(weight), _largest_of(lora)).clamp(min=1e-30) / LARGEST
    values = weights_in_fp8(weight, lora, factor, transpose=backward)
    left, scales = rows_in_fp8(rows, depth, factor)
    if not rows.is_cuda:
        return _in_torch(left, values, scales, ends).to(rows.dtype)
    ones = scales.new_ones(experts, values.shape[1])
    out: torch.Tensor = torch._scaled_grouped_mm(
        left, values.transpose(1, 2), scales, ones, offs=ends, out_dtype=rows.dtype, use_fast_accum=True
    )
    return out


def largest(weight: Any) -> torch.Tensor:
    """The largest absolute value of a quantized stack, a scalar in fp32: of each block one value is its constant, or
    that with the other sign. It is kept at the weight: first called while a CUDA graph is captured, it would be memory
    that only this graph fills."""
    if not hasattr(weight, "largest"):
        state, constants = weight.quant_state, weight.quant_state.absmax
        if state.nested:
            from bitsandbytes.functional import dequantize_blockwise

            constants = dequantize_blockwise(constants, state.state2) + state.offset
        weight.largest = constants.float().amax()
    kept: torch.Tensor = weight.largest
    return kept


def _largest_of(lora: torch.Tensor) -> torch.Tensor:
    if not lora.numel():
        return torch.zeros((), device=lora.device)
    found: torch.Tensor = torch.linalg.vector_norm(lora, float("inf"), dtype=torch.float32)
    return found


def rows_in_fp8(rows: torch.Tensor, depth: int, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`rows` [rows, depth + rank] as the left factor [rows, depth + 3 rank, filled up with zeros], and what its rows'
    products are to be multiplied by [rows], `factor` included."""
    rank = rows.shape[1] - depth
    out = torch.empty(len(rows), depth + _tail(rank), dtype=FORMAT, device=rows.device)
    scales = torch.empty(len(rows), device=rows.device)
    if not rows.is_cuda:
        values = rows.float()
        scale = values.abs().amax(dim=1).clamp(min=1e-30) / LARGEST
        coarse, rest = _split(values[:, depth:] / scale[:, None])
        _fill(out, values[:, :depth] / scale[:, None], (coarse, rest, coarse))
        return out, scales.copy_(scale * factor)
    fp8_kernels.rows_in_fp8[(len(rows),)](
        rows,
        out,
        scales,
        factor,
        rows.stride(0),
        DEPTH=depth,
        RANK=rank,
        WIDTH=out.shape[1],
        BLOCK=triton.next_power_of_2(depth),
        RANKS=tile_size(rank, 1024),
        num_warps=4,
    )
    return out, scales


def weights_in_fp8(weight: Any, lora: torch.Tensor, factor: torch.Tensor, *, transpose: bool) -> torch.Tensor:
    """The right factor [experts, outputs, inputs + 3 rank, filled up with zeros] of a quantized stack and `lora`
    [experts, outputs, rank], divided by `factor`; outputs and inputs change places with `transpose`."""
    experts, outputs, inputs = weight.quant_state.shape
    wide, depth = (inputs, outputs) if transpose else (outputs, inputs)
    rank = lora.shape[2]
    out = torch.empty(experts, wide, depth + _tail(rank), dtype=FORMAT, device=lora.device)
    scaled = _divided(weight, factor)
    if not lora.is_cuda:
        values = torch.empty(weight.quant_state.shape)
        dequantize(scaled, values)
        coarse, rest = _split(lora.float() / factor)
        _fill(out, values.transpose(1, 2) if transpose else values, (coarse, coarse, rest))
        return out
    if transpose:
        _write_transposed(scaled, out)
    else:
        dequantize(scaled, out)
    if rank:
        _write_adapter(lora, factor, out, depth)
    return out


class _Quantized(NamedTuple):
    """What `dequantize` reads of a `Params4bit`."""

    data: torch.Tensor
    quant_state: Any
    is_cuda: bool


def _divided(weight: Any, factor: torch.Tensor) -> _Quantized:
    """The stack with its values divided by `factor`: its constants are."""
    state = copy(weight.quant_state)
    if state.nested:
        state.state2, state.offset = copy(state.state2), state.offset / factor
        state.state2.absmax = state.state2.absmax / factor
    else:
        state.absmax = state.absmax / factor
    return _Quantized(weight.data, state, weight.is_cuda)


def _write_transposed(weight: _Quantized, out: torch.Tensor) -> None:
    state = weight.quant_state
    experts, outputs, inputs = state.shape
    fp8_kernels.transposed[(triton.cdiv(outputs, HEIGHT), triton.cdiv(inputs, state.blocksize * BLOCKS), experts)](
        *operands(weight),
        out,
        out.stride(1),
        OUTPUTS=outputs,
        INPUTS=inputs,
        **blocks(state),
        HEIGHT=HEIGHT,
        BLOCKS=BLOCKS,
        num_warps=4,
    )


def _write_adapter(lora: torch.Tensor, factor: torch.Tensor, out: torch.Tensor, depth: int) -> None:
    experts, wide, rank = lora.shape
    fp8_kernels.adapter_in_fp8[(triton.cdiv(wide, ADAPTER_HEIGHT), experts)](
        lora,
        factor,
        out,
        *lora.stride(),
        WIDE=wide,
        DEPTH=depth,
        RANK=rank,
        WIDTH=out.shape[2],
        HEIGHT=ADAPTER_HEIGHT,
        RANKS=tile_size(rank, 1024),
        num_warps=4,
    )


def _tail(rank: int) -> int:
    return round_up(3 * rank, ALIGNED)


def _split(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each value in 8 bits, and what that leaves of it."""
    coarse = values.to(FORMAT)
    return coarse, (values - coarse.float()).to(FORMAT)


def _fill(out: torch.Tensor, values: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> None:
    filling = out.shape[-1] - values.shape[-1] - sum(part.shape[-1] for part in parts)
    zeros = values.new_zeros(*values.shape[:-1], filling)
    out.copy_(torch.cat([values, *(part.float() for part in parts), zeros], dim=-1))


def _in_torch(left: torch.Tensor, values: torch.Tensor, scales: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return grouped_mm(left.float(), values.float().transpose(1, 2), ends) * scales[:, None]
