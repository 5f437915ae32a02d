"""The operations of one step of decoding, each one kernel (or two), for a few hundred rows of one new token each.

At that size a kernel of torch's takes longer to begin than to work, and its product of many experts is made for more
rows than the 20 to 60 that an expert has. What is rounded to bfloat16 here is what transformers' modules round.
"""

import math
from typing import NamedTuple

import torch

try:
    import triton

    from ernie_pipeline.models.generation import decode_kernels as kernels
except ImportError:  # no CUDA build of torch
    triton = None


class ExpertTiles(NamedTuple):
    """How a program of the experts' product works: the tile of its result, and how deep it reads at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class AttentionTiles(NamedTuple):
    """How a program of the attention works: how many cached columns it takes at a time."""

    columns: int
    warps: int
    stages: int


class Routed(NamedTuple):
    """Which experts the tokens have, as the products want it."""

    experts: torch.Tensor
    """[tokens, slots]"""
    weights: torch.Tensor
    """[tokens, slots] in the model's dtype."""
    counts: torch.Tensor
    """[experts] int32: pairs of a token and a slot that an expert has."""
    table: torch.Tensor
    """[experts, tokens] int32: their numbers, token x slots + slot, in any order."""


ROUTER_ROWS, ROUTER_DEPTH, ROUTER_PIECES = 16, 64, 8


def available() -> bool:
    """Whether there is Triton, which the operations are written in."""
    return triton is not None


def add_norm(
    residual: torch.Tensor,
    norm: torch.Tensor,
    epsilon: float,
    branch: torch.Tensor | None = None,
    pairs: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """RMSNorm (Zhang and Sennrich 2019, equation 4) of `residual` [rows, W] after what is added to it, in place:
    `branch` [rows, W], and the sum of `pairs` [rows, slots, W] by their `weights` [rows, slots]. `counts` become 0.
    """
    rows, width = residual.shape
    out = torch.empty_like(residual)
    kernels.add_norm[(rows,)](
        residual,
        residual if branch is None else branch,
        residual if pairs is None else pairs,
        residual if weights is None else weights,
        norm,
        out,
        residual if counts is None else counts,
        epsilon,
        0 if counts is None else len(counts),
        W=width,
        SLOTS=0 if weights is None else weights.shape[1],
        BRANCH=branch is not None,
        COUNTS=0 if counts is None else triton.next_power_of_2(len(counts)),
        BLOCK=triton.next_power_of_2(width),
        num_warps=8,
    )
    return out


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) x up [rows, I] of both beside one another [rows, 2I]."""
    rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, inner)
    kernels.gated[(rows, triton.cdiv(inner, 1024))](gate_up, out, INNER=inner, BLOCK=1024, num_warps=4)
    return out


def route(
    hidden: torch.Tensor,
    router: torch.Tensor,
    bias: torch.Tensor,
    slots: int,
    least: float,
    counts: torch.Tensor,
    precision: str = "tf32x3",
) -> Routed:
    """The `slots` experts of each token: the highest of softmax(hidden x router') + bias, weighted by the softmax over
    its sum, of `least` at least. `hidden` [tokens, W], `router` [experts, W] in fp32, `counts` [experts] of zeros.
    """
    (tokens, width), experts = hidden.shape, len(router)
    piece = triton.cdiv(triton.cdiv(width, ROUTER_PIECES), ROUTER_DEPTH) * ROUTER_DEPTH
    pieces, block = triton.cdiv(width, piece), max(16, triton.next_power_of_2(experts))
    partial = torch.empty(pieces, tokens, experts, dtype=torch.float32, device=hidden.device)
    kernels.router_logits[(triton.cdiv(tokens, ROUTER_ROWS), pieces)](
        hidden,
        router,
        partial,
        tokens,
        width,
        EXPERTS=experts,
        BLOCK=block,
        ROWS=ROUTER_ROWS,
        DEPTH=ROUTER_DEPTH,
        PIECE=piece,
        PRECISION=precision,
        num_warps=4,
    )
    weights = hidden.new_empty(tokens, slots)
    chosen = torch.empty(tokens, slots, dtype=torch.long, device=hidden.device)
    table = torch.empty(experts, tokens, dtype=torch.int32, device=hidden.device)
    kernels.choose_experts[(tokens,)](
        partial,
        bias,
        chosen,
        weights,
        counts,
        table,
        tokens,
        least,
        EXPERTS=experts,
        BLOCK=block,
        SLOTS=slots,
        SLOT_BLOCK=triton.next_power_of_2(slots),
        PIECES=pieces,
        num_warps=1,
    )
    return Routed(chosen, weights, counts, table)


def expert_product(
    source: torch.Tensor, weights: torch.Tensor, routed: Routed, tiles: ExpertTiles, *, gate_up: bool
) -> torch.Tensor:
    """Each pair's row times its expert's `weights`, [tokens x slots, columns], pair by pair.

    `source` [tokens, K], or [tokens x slots, K] with a row a pair; `weights` [experts, columns, K], or with `gate_up`
    [experts, 2 x columns, K] for silu(gate) x up.
    """
    (experts, height, depth), (tokens, slots) = weights.shape, routed.weights.shape
    columns, pairs = height // 2 if gate_up else height, tokens * slots
    out = source.new_empty(pairs, columns)
    kernels.expert_product[(most_tiles(pairs, experts, tiles) * triton.cdiv(columns, tiles.columns),)](
        source,
        weights,
        routed.counts,
        routed.table,
        out,
        experts,
        tokens,
        depth,
        columns,
        DIVISOR=pairs // len(source),
        GATED=gate_up,
        EVEN=depth % tiles.depth == 0,
        EXPERTS=triton.next_power_of_2(experts),
        ROWS=tiles.rows,
        COLUMNS=tiles.columns,
        DEPTH=tiles.depth,
        STAGES=tiles.stages,
        num_warps=tiles.warps,
    )
    return out


def most_tiles(pairs: int, experts: int, tiles: ExpertTiles) -> int:
    """An expert's last tile is not full, so that there may be one more for each that has any pair."""
    return min(pairs, pairs // tiles.rows + min(experts, pairs))


def attend(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tiles: AttentionTiles,
) -> torch.Tensor:
    """Attention of one new token a row, [rows, heads x width]: its key and value are written to the cache at the row's
    own position, and it attends to all up to that.

    `qkv` [rows, (heads + 2 key-value heads) x width], not yet rotated; `cos` and `sin` [rows, width / 2 or more], fp32;
    `positions` [rows]; `keys` and `values` [rows, key-value heads, capacity, width], dense in the last two axes.
    Each row's softmax goes through its columns once (Dao et al. 2022, "FlashAttention", algorithm 1).
    """
    rows, kv, _, width = keys.shape
    group = qkv.shape[1] // (kv * width) - 2
    out = qkv.new_empty(rows, kv * group * width)
    kernels.attend[(rows * kv,)](
        qkv,
        cos,
        sin,
        positions,
        keys,
        values,
        out,
        math.log2(math.e) / math.sqrt(width),
        keys.stride(0),
        keys.stride(1),
        cos.stride(0),
        KV=kv,
        GROUP=group,
        GROUP_BLOCK=max(16, triton.next_power_of_2(group)),
        WIDTH=width,
        COLUMNS=tiles.columns,
        STAGES=tiles.stages,
        num_warps=tiles.warps,
    )
    return out
