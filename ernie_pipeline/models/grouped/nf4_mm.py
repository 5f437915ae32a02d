"""The product of each expert's rows with its 4-bit weights, read as they lie and dequantized on the way to the product.

A layer's weights dequantized are four times the bytes, written once and read once, whatever the number of tokens: where
an expert has few rows, that is most of the time. Where it has many, each is dequantized again for every tile of rows.
"""

from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline.models.grouped.grouped_mm import grouped_mm

try:
    import triton

    from ernie_pipeline.models.grouped import nf4_kernels
    from ernie_pipeline.models.grouped.kernels import tile_size
except ImportError:  # no CUDA build of torch
    triton = None


BLOCK2 = 256
"""Constants of blocks that share one of their own."""


class Tile(NamedTuple):
    """What a program of the kernel computes, how deep it reads at a time, and how it is compiled."""

    units: int
    """How often 64 rows, at most: 1 to 4."""
    columns: int
    depth: int
    warps: int
    stages: int


TILE = Tile(3, 128, 64, 4, 3)
FEW_ROWS = 48
"""Up to so many an expert, on average, a tile has no more than 64: three programs, not two, share a multiprocessor."""

MOST_ROWS = {9: 288}
"""By the card's major compute capability: up to how many rows an expert, on average, its weights are read in 4 bits;
beyond them they are dequantized first. Measured on H200s (`benchmarks/training/`). Other cards were not, and
dequantize."""


def reads_nf4(weight: Any, rows: int) -> bool:
    """Whether the product of `rows` rows, spread over the experts of a quantized stack, is faster by `nf4_mm`."""
    state, data = weight.quant_state, weight.data
    if not data.is_cuda or not state.nested or state.quant_type != "nf4":
        return False
    experts, outputs, inputs = state.shape
    if state.blocksize != 64 or state.state2.blocksize != BLOCK2 or state.dtype != torch.bfloat16:
        return False
    most = MOST_ROWS.get(torch.cuda.get_device_capability(data.device)[0], -1)
    return rows <= most * experts and not any(size % max(TILE.columns, TILE.depth) for size in (outputs, inputs))


def nf4_mm(
    rows: torch.Tensor, weight: Any, lora: torch.Tensor, ends: torch.Tensor, *, backward: bool = False
) -> torch.Tensor:
    """[rows, outputs]: for each expert rows[:, :inputs] W' + rows[:, inputs:] lora', summed in fp32.

    `weight` is a quantized stack W [experts, outputs, inputs], `lora` [experts, outputs, rank], `rows`
    [rows, inputs + rank], `ends` [experts] the row after each expert's last, int32. With `backward` outputs and inputs
    change places: rows[:, :outputs] W + rows[:, outputs:] lora, `lora` [experts, rank, inputs].

    Constants of blocks are rounded to bf16, as the values are: on random weights 2.9e-3 off what fp32 gives, where
    `dequantize` and `grouped_mm` are 2.3e-3.
    """
    if not reads_nf4(weight, len(rows)):
        return in_torch(rows, weight, lora, ends, backward)
    few = len(rows) <= FEW_ROWS * weight.quant_state.shape[0]
    return launch(rows, weight, lora, ends, backward, TILE._replace(units=1) if few else TILE)


def launch(
    rows: torch.Tensor, weight: Any, lora: torch.Tensor, ends: torch.Tensor, backward: bool, tile: Tile
) -> torch.Tensor:
    """`nf4_mm` by the kernel, with that tile, whose columns and depth outputs and inputs are multiples of."""
    experts, outputs, inputs = weight.quant_state.shape
    wide = inputs if backward else outputs
    rank = lora.shape[1] if backward else lora.shape[2]
    out = rows.new_empty(len(rows), wide)
    # an expert's last tile is not full, so there may be one more for each
    tiles = min(len(rows) // (64 * tile.units) + experts, len(rows))
    nf4_kernels.nf4_mm[(tiles * (wide // tile.columns),)](
        rows,
        weight.data,
        constants(weight.quant_state),
        weight.quant_state.code,
        lora.contiguous(),
        ends,
        out,
        experts,
        OUTPUTS=outputs,
        INPUTS=inputs,
        RANK=rank,
        STRIDE=rows.stride(0),
        EXPERTS=triton.next_power_of_2(experts),
        BACKWARD=backward,
        ASSEMBLY=rows.is_cuda,
        UNITS=tile.units,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        RANKS=tile_size(rank, 64),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def constants(state: Any) -> torch.Tensor:
    """[experts, inputs / 64, outputs] of int32: of each block of 64 weights the constant in bf16, twice."""
    experts, outputs, inputs = state.shape
    blocks = inputs // 64
    out = torch.empty(experts, blocks, outputs, dtype=torch.int32, device=state.absmax.device)
    nf4_kernels.constants[(outputs // 64, experts)](
        state.absmax,
        state.state2.code,
        state.state2.absmax,
        state.offset,
        out,
        OUTPUTS=outputs,
        BLOCKS=blocks,
        BLOCK2=BLOCK2,
        HEIGHT=64,
        WIDTH=triton.next_power_of_2(blocks),
    )
    return out


def in_torch(rows: torch.Tensor, weight: Any, lora: torch.Tensor, ends: torch.Tensor, backward: bool) -> torch.Tensor:
    """`nf4_mm` by torch's operations, with the weights dequantized first."""
    values = torch.empty(weight.quant_state.shape, dtype=rows.dtype, device=rows.device)
    dequantize(weight, values)
    both = torch.cat([values, lora], dim=1 if backward else 2)
    return grouped_mm(rows, both if backward else both.transpose(1, 2), ends)
