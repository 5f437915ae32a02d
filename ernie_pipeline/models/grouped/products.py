"""The experts of a layer as products of groups, one group of rows an expert, with their adapters inside the products.

A layer's weights are dequantized once for all its experts; where an expert has few rows, the product reads them in 4
bits instead (`nf4_mm.py`), and where a recipe allows it, products of many are in 8-bit floats (`fp8_mm.py`). An adapter
costs its two small products: what A gives stands in further columns beside the input, and B in columns beside the
base's weights, so that one product adds both, in fp32 before it is rounded. For rows x of an expert with weights W,
adapter A, B and scale s (Hu et al. 2021, "LoRA", equation 3): [x, x A'] [W, s B]' = x W' + s (x A') B'. Backwards it is
the same the other way round, with A in rows below the base's weights: [g, g s B] [W; A] = g W + s (g B) A.

What the backward pass needs and can be had cheaply (gathered rows, dequantized weights, activations) is made again
there: between the passes a token costs the 2I values of gate and up in each of its slots, and little more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.grouped.adapter_ops import add_low_rank, gather_with_low_rank, write_adapter
from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline.models.grouped.flat_parameters import main_grad
from ernie_pipeline.models.grouped.fp8_mm import fp8_mm
from ernie_pipeline.models.grouped.fused_ops import sum_slots, swiglu_backward, swiglu_into
from ernie_pipeline.models.grouped.grouped_mm import grouped_mm
from ernie_pipeline.models.grouped.nf4_mm import nf4_mm, reads_nf4
from ernie_pipeline.models.grouped.outer_products import add_outer_products
from ernie_pipeline.models.memory import round_up

ALIGNED = 8
"""Columns after which another target's may begin: the product on CUDA wants them at multiples of 16 bytes."""


class LoraPair(NamedTuple):
    """Of a target, for every expert."""

    lora_A: torch.Tensor
    """[experts, rank, inputs]"""
    lora_B: torch.Tensor
    """[experts, outputs, rank]"""


Pairs = Mapping[str, LoraPair]
"""By target."""


@dataclass(frozen=True)
class Stack:
    """The weights of one of `FUSED_PROJECTIONS` [experts, outputs, inputs], as `Params4bit`, and perhaps dequantized
    already: as `augmented` leaves them."""

    quantized: Any
    dequantized: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, outputs, inputs)."""
        experts, outputs, inputs = self.quantized.quant_state.shape
        return experts, outputs, inputs

    def augmented(self, pairs: Pairs, dtype: torch.dtype) -> torch.Tensor:
        """[experts, outputs + width, inputs + width]; what is in the adapter's rows and columns does not count yet."""
        shape = self.augmented_shape(pairs)
        if self.dequantized is not None and self.dequantized.shape == shape:
            return self.dequantized
        weight = torch.empty(shape, dtype=dtype, device=self.quantized.device)
        dequantize(self.quantized, weight[:, : self.shape[1]])
        return weight

    def augmented_shape(self, pairs: Pairs) -> tuple[int, int, int]:
        """That of `augmented`."""
        experts, outputs, inputs = self.shape
        return experts, outputs + _width(pairs), inputs + _width(pairs)


@dataclass(frozen=True)
class Experts:
    """A layer's stacks by `FUSED_PROJECTIONS`, and the adapter: A and B of each target that has them, and the scale."""

    stacks: Mapping[str, Stack]
    pairs: Pairs
    scale: float
    fp8: bool = False
    """Whether products of many rows are made in 8-bit floats."""


class Routing(NamedTuple):
    """The (token, slot) pairs in the order of their experts: `rows` of them."""

    token_of_row: torch.Tensor
    """[rows]"""
    ends: torch.Tensor
    """[experts] the row after each expert's last, int32, as the grouped product wants it."""
    row_of_slot: torch.Tensor
    """[tokens, k]"""


def route(chosen: torch.Tensor, experts: int) -> Routing:
    """The order in which the grouped products take the pairs of `chosen` [tokens, k]. It never waits for the GPU."""
    # of few bits each: a pass over memory sorts eight of them
    numbers = torch.arange(experts, device=chosen.device, dtype=torch.uint8 if experts <= 256 else torch.int16)
    expert_of_row, order = chosen.flatten().to(numbers.dtype).sort(stable=True)
    ends = torch.searchsorted(expert_of_row, numbers, right=True).to(torch.int32)
    row_of_slot = torch.empty_like(order)
    row_of_slot[order] = torch.arange(len(order), device=order.device)
    return Routing(order // chosen.shape[1], ends, row_of_slot.view_as(chosen))


def grouped_experts(
    hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, experts: Experts
) -> torch.Tensor:
    """[tokens, hidden]: for each token the sum over its `chosen` experts [tokens, k] of weight x down(silu(gate) x up).

    Differentiable in `hidden`, `weights` [tokens, k] and the adapter.
    """
    lora = _tensors(experts.pairs)
    out: torch.Tensor = _Grouped.apply(hidden, weights, chosen, experts, *lora)  # type: ignore[no-untyped-call]
    return out


def _tensors(pairs: Pairs) -> list[torch.Tensor]:
    return [tensor for pair in pairs.values() for tensor in pair]


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weights: Any, chosen: Any, experts: Experts, *lora: Any) -> torch.Tensor:  # type: ignore[override]
        routing = route(chosen, experts.stacks["down_proj"].shape[0])
        weight_of_row = _by_row(weights, routing)

        weight = _weight(experts, "gate_up_proj", chosen.numel(), hidden.dtype)
        rows, in_low_rank = _gathered(hidden, weight.lora_A, routing)
        gate_up = weight.forward(rows, routing.ends)
        del weight, rows

        weight = _weight(experts, "down_proj", len(gate_up), hidden.dtype)
        active = gate_up.new_empty(len(gate_up), weight.inputs + weight.width)
        gate, up = gate_up.chunk(2, dim=1)
        swiglu_into(gate, up, weight_of_row, active)
        down_low_rank = add_low_rank(active, weight.lora_A, routing.ends) if weight.width else None
        out = sum_slots(weight.forward(active, routing.ends), routing.row_of_slot)

        ctx.experts = experts
        ctx.save_for_backward(hidden, gate_up, weight_of_row, in_low_rank, down_low_rank, *routing)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Any) -> Any:  # type: ignore[override]
        hidden, gate_up, weight_of_row, in_low_rank, down_low_rank, *rest = ctx.saved_tensors
        routing, experts = Routing(*rest), ctx.experts
        gate, up = gate_up.chunk(2, dim=1)
        grads = {target: LoraPair(*map(_gradient, pair)) for target, pair in experts.pairs.items()}

        weight = _weight(experts, "down_proj", len(gate_up), hidden.dtype)
        grad, _ = _gathered(grad_out, weight.lora_B.transpose(1, 2), routing)
        grad_active = weight.backward(grad, routing.ends)
        active = torch.empty_like(gate, memory_format=torch.contiguous_format) if weight.columns else None
        grad_gate_up = gate_up.new_empty(
            len(gate_up), gate_up.shape[1] + _width(own_pairs("gate_up_proj", experts.pairs))
        )
        grad_weight = swiglu_backward(gate, up, weight_of_row, grad_active, grad_gate_up, active)
        assert grad_weight is not None
        if active is not None:
            _add_grad_lora(grads, experts.scale, weight, active, down_low_rank, grad, routing.ends)
        del weight, active, grad, grad_active

        weight = _weight(experts, "gate_up_proj", len(gate_up), hidden.dtype)
        if weight.width:
            add_low_rank(grad_gate_up, weight.lora_B.transpose(1, 2), routing.ends)
        grad_hidden = sum_slots(weight.backward(grad_gate_up, routing.ends), routing.row_of_slot)
        if weight.width:
            ends, token = routing.ends, routing.token_of_row
            _add_grad_lora(grads, experts.scale, weight, hidden, in_low_rank, grad_gate_up, ends, token)
        both = zip(_tensors(experts.pairs), _tensors(grads), strict=True)
        grad_lora = [None if grad is main_grad(parameter) else grad for parameter, grad in both]
        return grad_hidden, grad_weight[routing.row_of_slot], None, None, *grad_lora


def _by_row(weights: torch.Tensor, routing: Routing) -> torch.Tensor:
    """The router's weights [tokens, k], by row [rows]."""
    weight_of_row = torch.empty_like(weights.flatten())
    weight_of_row[routing.row_of_slot.flatten()] = weights.flatten()
    return weight_of_row


# One of the two stacks with its adapter beside it


class DequantizedWeight(NamedTuple):
    """A stack's weights W and the adapter on them in one tensor."""

    values: torch.Tensor
    """[experts, outputs + width, inputs + width]: W; in the columns behind it B; in the rows below it A; and in the
    corner nothing that counts."""
    outputs: int
    inputs: int
    columns: dict[str, slice]
    """Of the width, those of each target."""

    @property
    def width(self) -> int:
        """The adapter's columns, with what aligns them."""
        return self.values.shape[2] - self.inputs

    @property
    def lora_A(self) -> torch.Tensor:
        """[experts, width, inputs]: A of each target."""
        return self.values[:, self.outputs :, : self.inputs]

    @property
    def lora_B(self) -> torch.Tensor:
        """[experts, outputs, width]: B of each target, over its own rows."""
        return self.values[:, : self.outputs, self.inputs :]

    def forward(self, rows: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """[rows, outputs]: `rows` [rows, inputs + width] times their expert's [W, B]'."""
        return grouped_mm(rows, self.values[:, : self.outputs].transpose(1, 2), ends)

    def backward(self, grad: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """[rows, inputs]: `grad` [rows, outputs + width] times their expert's [W; A]."""
        return grouped_mm(grad, self.values[:, :, : self.inputs], ends)


class QuantizedWeight(NamedTuple):
    """The same with W in 4 bits, for products that take it so."""

    product: Callable[..., torch.Tensor]
    """`nf4_mm` or `fp8_mm`."""
    quantized: Any
    outputs: int
    inputs: int
    columns: dict[str, slice]
    lora_A: torch.Tensor
    lora_B: torch.Tensor

    @property
    def width(self) -> int:
        """See `DequantizedWeight.width`."""
        return self.lora_A.shape[1]

    def forward(self, rows: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """See `DequantizedWeight.forward`."""
        return self.product(rows, self.quantized, self.lora_B, ends)

    def backward(self, grad: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """See `DequantizedWeight.backward`."""
        return self.product(grad, self.quantized, self.lora_A, ends, backward=True)


AdaptedWeight = DequantizedWeight | QuantizedWeight


def _weight(experts: Experts, fused: str, rows: int, dtype: torch.dtype) -> AdaptedWeight:
    """In the form in which the product of `rows` rows is fastest, of those that are allowed."""
    stack, pairs = experts.stacks[fused], own_pairs(fused, experts.pairs)
    number, outputs, inputs = stack.shape
    weight: AdaptedWeight
    few = reads_nf4(stack.quantized, rows)
    if few or experts.fp8:  # held dequantized or not: what a pass gives is to be the same
        options = {"dtype": dtype, "device": stack.quantized.device}
        lora_A = torch.empty(number, _width(pairs), inputs, **options)
        lora_B = torch.empty(number, outputs, _width(pairs), **options)
        product = nf4_mm if few else fp8_mm
        weight = QuantizedWeight(product, stack.quantized, outputs, inputs, _columns(pairs), lora_A, lora_B)
    else:
        weight = DequantizedWeight(stack.augmented(pairs, dtype), outputs, inputs, _columns(pairs))
    if pairs:
        targets = {FUSED_PROJECTIONS[fused].index(target): pair for target, pair in pairs.items()}
        aligned = weight.width // len(pairs)
        write_adapter(weight.lora_A, weight.lora_B, targets, aligned, experts.scale)
    return weight


def own_pairs(fused: str, pairs: Pairs) -> Pairs:
    """Those of `pairs` whose targets are in one of `FUSED_PROJECTIONS`, in its order."""
    return {target: pairs[target] for target in FUSED_PROJECTIONS[fused] if target in pairs}


def _columns(pairs: Pairs) -> dict[str, slice]:
    starts, start = {}, 0
    for target, pair in pairs.items():
        starts[target] = slice(start, start + pair.lora_A.shape[1])
        start += round_up(pair.lora_A.shape[1], ALIGNED)
    return starts


def _width(pairs: Pairs) -> int:
    return sum(round_up(pair.lora_A.shape[1], ALIGNED) for pair in pairs.values())


# The products


def _gathered(source: torch.Tensor, lora: torch.Tensor, routing: Routing) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of [tokens, depth] the rows of the pairs, with what their expert's `lora` [experts, width, depth] makes of them
    in the columns behind; and the latter alone, where there is an adapter."""
    if lora.shape[1] == 0:
        return source[routing.token_of_row], None
    return gather_with_low_rank(source, routing.token_of_row, lora, routing.ends)


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    """What its gradient is added to: its own, or one for autograd to add."""
    own = main_grad(parameter)
    return torch.zeros_like(parameter) if own is None else own


def _add_grad_lora(
    grads: Pairs,
    scale: float,
    weight: AdaptedWeight,
    rows: torch.Tensor,
    low_rank: torch.Tensor | None,
    grad: torch.Tensor,
    ends: torch.Tensor,
    token: torch.Tensor | None = None,
) -> None:
    """Add to `grads` those of a weight's targets: from its input `rows` [rows, inputs] (or [tokens, inputs], of which
    `token` names each row's), what A made of them, and `grad` with what B makes of it in the columns behind."""
    assert low_rank is not None
    grads_A = [grads[target].lora_A for target in weight.columns]
    add_outer_products(grads_A, grad[:, weight.outputs :], rows, ends, token=token)
    targets = next(targets for targets in FUSED_PROJECTIONS.values() if next(iter(weight.columns)) in targets)
    height = weight.outputs // len(targets)
    for target, columns in weight.columns.items():
        start, grad_B = targets.index(target) * height, grads[target].lora_B.transpose(1, 2)
        add_outer_products([grad_B], low_rank[:, columns], grad[:, start : start + height], ends, scale=scale)
