"""The experts of a layer as products of groups, one group of rows an expert, with their adapters inside the products.

A layer's weights are unpacked once for all its experts. An adapter costs its two small products: what its first one
gives stands in further columns beside the input, and the weights of its second one in columns beside the base's, so
that one product adds both, in fp32 before it is rounded. For rows x of an expert with weights W, adapter A, B and
scale s (Hu et al. 2021, "LoRA", equation 3): [x, x A'] [W, s B]' = x W' + s (x A') B'. Backwards it is the same the
other way round, with A in rows below the base's weights: [g, g s B] [W; A] = g W + s (g B) A.

What the backward pass needs and can be had cheaply (gathered rows, unpacked weights, activations) is made again there:
between the passes a token costs the 2I values of gate and up in each of its slots, and little more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from ernie_pipeline.models.grouped.dequantize import unpack
from ernie_pipeline.models.grouped.fused_ops import gated, gated_backward, summed
from ernie_pipeline.models.grouped.grouped_mm import grouped_mm
from ernie_pipeline.models.grouped.outer_products import outer_products

PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""transformers' fused expert parameters, and the LoRA targets whose rows they hold, one after the other."""
ALIGNED = 8
"""Columns after which another target's may begin: the product on CUDA wants them at multiples of 16 bytes."""


class LoraPair(NamedTuple):
    """A [experts, rank, inputs] and B [experts, outputs, rank] of a target."""

    a: torch.Tensor
    b: torch.Tensor


Pairs = Mapping[str, LoraPair]
"""By target."""


@dataclass(frozen=True)
class Stack:
    """The weights of one of `PARTS`, [experts, outputs, inputs], as `Params4bit`, and perhaps unpacked already."""

    packed: Any
    kept: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, outputs, inputs)."""
        experts, outputs, inputs = self.packed.quant_state.shape
        return experts, outputs, inputs

    def unpacked(self, pairs: Pairs, dtype: torch.dtype) -> torch.Tensor:
        """[experts, outputs + width, inputs + width]; what is in the adapter's rows and columns does not count yet."""
        shape = self.unpacked_shape(pairs)
        if self.kept is not None and self.kept.shape == shape:
            return self.kept
        weight = torch.empty(shape, dtype=dtype, device=self.packed.device)
        unpack(self.packed, weight[:, : self.shape[1]])
        return weight

    def unpacked_shape(self, pairs: Pairs) -> tuple[int, int, int]:
        """That of `unpacked`."""
        experts, outputs, inputs = self.shape
        return experts, outputs + _width(pairs), inputs + _width(pairs)


@dataclass(frozen=True)
class Experts:
    """A layer's stacks by `PARTS`, and the adapter: A and B of each target that has them, and the scale."""

    stacks: Mapping[str, Stack]
    pairs: Pairs
    scale: float


class Routing(NamedTuple):
    """The (token, slot) pairs in the order of their experts: `rows` of them."""

    token: torch.Tensor
    """[rows] the token of each row."""
    ends: torch.Tensor
    """[experts] the row after each expert's last, int32, as the grouped product wants it."""
    places: torch.Tensor
    """[tokens, k] the row of each pair."""


def route(chosen: torch.Tensor, experts: int) -> Routing:
    """The order in which the grouped products take the pairs of `chosen` [tokens, k]. It never waits for the GPU."""
    of_row, order = chosen.flatten().sort(stable=True)
    numbers = torch.arange(experts, device=chosen.device)
    ends = torch.searchsorted(of_row, numbers, right=True).to(torch.int32)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    return Routing(order // chosen.shape[1], ends, places.view_as(chosen))


def grouped_experts(
    hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, experts: Experts
) -> torch.Tensor:
    """[tokens, hidden]: for each token the sum over its `chosen` experts [tokens, k] of weight x down(silu(gate) x up).

    Differentiable in `hidden`, `weights` [tokens, k] and the adapter.
    """
    lora = [tensor for pair in experts.pairs.values() for tensor in pair]
    out: torch.Tensor = _Grouped.apply(hidden, weights, chosen, experts, *lora)  # type: ignore[no-untyped-call]
    return out


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weights: Any, chosen: Any, experts: Experts, *lora: Any) -> torch.Tensor:  # type: ignore[override]
        routing = route(chosen, experts.stacks["down_proj"].shape[0])
        weight_of_row = _by_row(weights, routing)

        side = _side(experts, "gate_up_proj", hidden.dtype)
        rows = F.pad(hidden, (0, side.width))[routing.token]
        gate_up, in_ranks = _forward(rows, side, routing.ends)
        del side, rows

        side = _side(experts, "down_proj", hidden.dtype)
        active = gate_up.new_empty(len(gate_up), side.inputs + side.width)
        gate, up = gate_up.chunk(2, dim=1)
        gated(gate, up, weight_of_row, active)
        down, down_ranks = _forward(active, side, routing.ends)
        out = summed(down, routing.places)

        ctx.experts = experts
        ctx.save_for_backward(hidden, gate_up, weight_of_row, in_ranks, down_ranks, *routing)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Any) -> Any:  # type: ignore[override]
        hidden, gate_up, weight_of_row, in_ranks, down_ranks, *rest = ctx.saved_tensors
        routing, experts = Routing(*rest), ctx.experts
        gate, up = gate_up.chunk(2, dim=1)

        side = _side(experts, "down_proj", hidden.dtype)
        grad = F.pad(grad_out, (0, side.width))[routing.token]
        grad_active = _backward(grad, side, routing.ends)
        active = torch.empty_like(gate, memory_format=torch.contiguous_format) if side.columns else None
        grad_gate_up = gate_up.new_empty(
            len(gate_up), gate_up.shape[1] + _width(own_pairs("gate_up_proj", experts.pairs))
        )
        grad_weight = gated_backward(gate, up, weight_of_row, grad_active, grad_gate_up, active)
        assert grad_weight is not None
        grads = {} if active is None else _grad_lora(experts, side, active, down_ranks, grad, routing.ends)
        del side, active, grad, grad_active

        side = _side(experts, "gate_up_proj", hidden.dtype)
        grad_hidden = summed(_backward(grad_gate_up, side, routing.ends), routing.places)
        if side.columns:
            grads |= _grad_lora(experts, side, hidden, in_ranks, grad_gate_up, routing.ends, routing.token)
        of_lora = [gradient for target in experts.pairs for gradient in grads[target]]
        return grad_hidden, grad_weight[routing.places], None, None, *of_lora


def _by_row(weights: torch.Tensor, routing: Routing) -> torch.Tensor:
    """The router's weights [tokens, k], by row [rows]."""
    of_row = torch.empty_like(weights.flatten())
    of_row[routing.places.flatten()] = weights.flatten()
    return of_row


# One of the two stacks with its adapter


class _Side(NamedTuple):
    both: torch.Tensor
    """[experts, outputs + width, inputs + width]: the base; in the columns behind it B of each target, over its own
    rows; in the rows below it A of each target; and in the corner nothing that counts."""
    columns: dict[str, slice]
    """Of the width, those of each target."""
    outputs: int
    inputs: int

    @property
    def width(self) -> int:
        """The adapter's columns, with what aligns them."""
        return self.both.shape[2] - self.inputs

    @property
    def first(self) -> torch.Tensor:
        """[experts, width, inputs]: A of each target."""
        return self.both[:, self.outputs :, : self.inputs]

    @property
    def second(self) -> torch.Tensor:
        """[experts, outputs, width]: B of each target."""
        return self.both[:, : self.outputs, self.inputs :]


def _side(experts: Experts, fused: str, dtype: torch.dtype) -> _Side:
    stack = experts.stacks[fused]
    _, outputs, inputs = stack.shape
    pairs = own_pairs(fused, experts.pairs)
    side = _Side(stack.unpacked(pairs, dtype), _columns(pairs), outputs, inputs)
    height = outputs // len(PARTS[fused])
    aligned = all(pair.a.shape[1] % ALIGNED == 0 for pair in pairs.values())
    if not aligned:
        side.first.zero_()
    if not aligned or len(PARTS[fused]) > 1:
        side.second.zero_()
    for target, (a, b) in pairs.items():
        side.first[:, side.columns[target]] = a
        start = PARTS[fused].index(target) * height
        side.second[:, start : start + height, side.columns[target]] = _scaled(b, experts.scale)
    return side


def own_pairs(fused: str, pairs: Pairs) -> Pairs:
    """Those of `pairs` whose targets are in one of `PARTS`, in its order."""
    return {target: pairs[target] for target in PARTS[fused] if target in pairs}


def _columns(pairs: Pairs) -> dict[str, slice]:
    starts, start = {}, 0
    for target, pair in pairs.items():
        starts[target] = slice(start, start + pair.a.shape[1])
        start += _aligned(pair.a.shape[1])
    return starts


def _width(pairs: Pairs) -> int:
    return sum(_aligned(pair.a.shape[1]) for pair in pairs.values())


def _aligned(rank: int) -> int:
    return -(-rank // ALIGNED) * ALIGNED


def _scaled(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    return tensor if scale == 1 else tensor * scale


# The products


def _forward(rows: torch.Tensor, side: _Side, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a side makes of rows[:, :inputs], and what its A makes of them, which is put into the columns behind."""
    ranks = None
    if side.width:
        ranks = grouped_mm(rows[:, : side.inputs], side.first.transpose(1, 2), ends)
        rows[:, side.inputs :] = ranks
    return grouped_mm(rows, side.both[:, : side.outputs].transpose(1, 2), ends), ranks


def _backward(grad: torch.Tensor, side: _Side, ends: torch.Tensor) -> torch.Tensor:
    """The gradient of a side's input from grad[:, :outputs]; what comes through B is put into the columns behind."""
    if side.width:
        grad[:, side.outputs :] = grouped_mm(grad[:, : side.outputs], side.second, ends)
    return grouped_mm(grad, side.both[:, :, : side.inputs], ends)


def _grad_lora(
    experts: Experts,
    side: _Side,
    rows: torch.Tensor,
    ranks: torch.Tensor | None,
    grad: torch.Tensor,
    ends: torch.Tensor,
    token: torch.Tensor | None = None,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The gradients of A and B of a side's targets: from its input `rows` [rows, inputs] (or [tokens, inputs], of which
    `token` tells each row's), what A made of them, and `grad` as `_backward` left it."""
    assert ranks is not None
    of_first = outer_products(grad[:, side.outputs :], rows, ends, token=token)
    parts = next(parts for parts in PARTS.values() if next(iter(side.columns)) in parts)
    height, grads = side.outputs // len(parts), {}
    for target, columns in side.columns.items():
        start = parts.index(target) * height
        of_second = outer_products(ranks[:, columns], grad[:, start : start + height], ends, turn=True)
        grads[target] = of_first[:, columns], _scaled(of_second, experts.scale)
    return grads
