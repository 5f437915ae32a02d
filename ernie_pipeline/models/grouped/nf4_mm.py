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

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


TILES: dict[int, dict[int, Tile]] = {9: {72: Tile(64, 128, 64, 4, 3), 288: Tile(128, 128, 64, 4, 3)}}
"""By the card's major compute capability: up to how many rows an expert, on average, which tile; beyond the last the
weights are dequantized first. Measured on H200s (`benchmarks/training/`). Other cards were not, and dequantize."""


def reads_nf4(weight: Any, rows: int) -> bool:
    """Whether the product of `rows` rows, spread over the experts of a quantized stack, is faster by `nf4_mm`."""
    return _tile(weight, rows) is not None


def _tile(weight: Any, rows: int) -> Tile | None:
    state, data = weight.quant_state, weight.data
    if not data.is_cuda or not state.nested or state.quant_type != "nf4":
        return None
    experts, outputs, inputs = state.shape
    if state.blocksize != 64 or state.state2.blocksize != BLOCK2 or state.dtype != torch.bfloat16:
        return None
    tiles = TILES.get(torch.cuda.get_device_capability(data.device)[0], {})
    tile = next((tile for most, tile in sorted(tiles.items()) if rows <= most * experts), None)
    fits = tile is not None and not any(size % max(tile.columns, tile.depth) for size in (outputs, inputs))
    return tile if fits else None


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
    tile = _tile(weight, len(rows))
    if tile is None:
        return in_torch(rows, weight, lora, ends, backward)
    return launch(rows, weight, lora, ends, backward, tile)


def launch(
    rows: torch.Tensor, weight: Any, lora: torch.Tensor, ends: torch.Tensor, backward: bool, tile: Tile
) -> torch.Tensor:
    """`nf4_mm` by the kernel, with that tile, whose columns and depth outputs and inputs are multiples of."""
    state = weight.quant_state
    experts, outputs, inputs = state.shape
    wide = inputs if backward else outputs
    out = rows.new_empty(len(rows), wide)
    rank = lora.shape[1] if backward else lora.shape[2]
    # an expert's last tile is not full, so there may be one more for each
    tiles = min(len(rows) // tile.rows + experts, len(rows))
    scales, blocks = torch.empty_like(state.absmax, dtype=torch.int32), state.absmax.numel()
    nf4_kernels.constants[(triton.cdiv(blocks, 4096),)](
        state.absmax, state.state2.code, state.state2.absmax, state.offset, scales, blocks, BLOCK2=BLOCK2, BLOCK=4096
    )
    nf4_kernels.nf4_mm[(tiles * (wide // tile.columns),)](
        rows,
        weight.data,
        scales,
        state.code,
        lora,
        ends,
        out,
        experts,
        rows.stride(0),
        lora.stride(0),
        *(lora.stride()[1:] if backward else reversed(lora.stride()[1:])),
        out.stride(0),
        OUTPUTS=outputs,
        INPUTS=inputs,
        RANK=rank,
        EXPERTS=triton.next_power_of_2(experts),
        BACKWARD=backward,
        ASSEMBLY=rows.is_cuda,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        RANKS=tile_size(rank, 64),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def in_torch(rows: torch.Tensor, weight: Any, lora: torch.Tensor, ends: torch.Tensor, backward: bool) -> torch.Tensor:
    """`nf4_mm` by torch's operations, with the weights dequantized first."""
    values = torch.empty(weight.quant_state.shape, dtype=rows.dtype, device=rows.device)
    dequantize(weight, values)
    both = torch.cat([values, lora], dim=1 if backward else 2)
    return grouped_mm(rows, both if backward else both.transpose(1, 2), ends)
