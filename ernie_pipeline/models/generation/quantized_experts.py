"""A layer's experts in 4 bits with their adapter, in a step of decoding: dequantized in registers, never in memory."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.generation import decode_ops as ops
from ernie_pipeline.models.generation.decode_ops import ExpertTiles, Routed
from ernie_pipeline.models.grouped.experts import GroupedExperts

try:
    import triton

    from ernie_pipeline.models.generation import decode_kernels as kernels
except ImportError:  # no CUDA build of torch
    triton = None

BLOCK = 64
"""Values that share a constant, as the kernel takes them."""
LEAST_RANK = 16
"""The matrix units' least depth: an adapter's rank is filled up with zeros."""


class Lora(NamedTuple):
    """A stack's adapter in the model's dtype (Hu et al. 2021, "LoRA", equation 3). Rank: a power of 2."""

    lora_A: torch.Tensor
    """[experts, targets x rank, inputs], the even inputs before the odd ones."""
    lora_B: torch.Tensor
    """[experts, outputs, rank], with the scale in it."""


class QuantizedStack(NamedTuple):
    """Every expert's weights of one product, doubly quantized."""

    packed: torch.Tensor
    """Two values a byte, uint8."""
    state: Any
    """bitsandbytes' own, of shape [experts, outputs, inputs]."""
    lora: Lora | None


class QuantizedExperts(NamedTuple):
    """Both products of a layer."""

    gate_up: QuantizedStack
    down: QuantizedStack


def quantized_experts(module: Any, dtype: torch.dtype) -> QuantizedExperts | None:
    """A backend's experts as the kernel takes them, their adapter as it is now; None if they are held otherwise."""
    if not isinstance(module, GroupedExperts):
        return None
    stacks = []
    for fused, targets in FUSED_PROJECTIONS.items():
        weight = getattr(module, fused)
        state = weight.quant_state
        if not state.nested or state.blocksize != BLOCK or state.shape[-1] % BLOCK:
            return None
        stacks.append(QuantizedStack(weight.data.view(-1), state, _lora(module, targets, state.shape, dtype)))
    return QuantizedExperts(*stacks)


@torch.no_grad()
def _lora(module: Any, targets: tuple[str, ...], shape: Any, dtype: torch.dtype) -> Lora | None:
    pairs: Mapping[str, Any] = {} if module.adapter_in_use is None else module.adapter_in_use.pairs()
    rank = max((pairs[target].lora_A.shape[1] for target in targets if target in pairs), default=0)
    if rank == 0:
        return None
    (experts, outputs, inputs), wide = shape, max(LEAST_RANK, 1 << (rank - 1).bit_length())
    first = torch.zeros(experts, len(targets), wide, inputs, dtype=dtype, device=module.gate_up_proj.device)
    second = first.new_zeros(experts, len(targets), outputs // len(targets), wide)
    for number, target in enumerate(targets):
        if target in pairs:
            first[:, number, :rank] = even_first(pairs[target].lora_A)
            second[:, number, :, :rank] = module.adapter_in_use.scale * pairs[target].lora_B
    return Lora(first.flatten(1, 2), second.flatten(1, 2))


def even_first(rows: torch.Tensor) -> torch.Tensor:
    """[..., columns] with the even columns before the odd ones: a byte holds one of each."""
    return rows.view(*rows.shape[:-1], -1, 2).transpose(-1, -2).flatten(-2)


def pairs_of(
    hidden: torch.Tensor, experts: QuantizedExperts, routed: Routed, gate_up: ExpertTiles, down: ExpertTiles
) -> torch.Tensor:
    """What each pair of a token and a slot gives, [tokens x slots, hidden], of `hidden` [tokens, hidden]."""
    active = quantized_product(even_first(hidden), experts.gate_up, routed, gate_up, gate_up=True)
    return quantized_product(active, experts.down, routed, down, gate_up=False)


def quantized_product(
    source: torch.Tensor, stack: QuantizedStack, routed: Routed, tiles: ExpertTiles, *, gate_up: bool
) -> torch.Tensor:
    """`decode_ops.expert_product` with such a stack. `source` has a row's even columns before the odd ones; and so has
    the result with `gate_up`. A tile is as deep as a block."""
    state, lora = stack.state, stack.lora
    (experts, height, depth), (tokens, slots) = state.shape, routed.weights.shape
    columns, pairs = height // 2 if gate_up else height, tokens * slots
    out = source.new_empty(pairs, columns)
    lowered = out
    if lora is not None:
        small = ExpertTiles(tiles.rows, 32, BLOCK, 4, 4)
        lowered = ops.expert_product(source, lora.lora_A, routed, small, gate_up=False)
    kernels.quantized_product[(ops.most_tiles(pairs, experts, tiles) * triton.cdiv(columns, tiles.columns),)](
        source,
        stack.packed,
        state.absmax,
        state.state2.code,
        state.state2.absmax,
        state.offset,
        state.code,
        routed.counts,
        routed.table,
        lowered,
        out if lora is None else lora.lora_B,
        out,
        experts,
        tokens,
        depth,
        columns,
        DIVISOR=pairs // len(source),
        GATED=gate_up,
        RANK=0 if lora is None else lora.lora_B.shape[2],
        BLOCK2=state.state2.blocksize,
        EXPERTS=triton.next_power_of_2(experts),
        ROWS=tiles.rows,
        COLUMNS=tiles.columns,
        STAGES=tiles.stages,
        INLINE=source.is_cuda,
        num_warps=tiles.warps,
    )
    return out
