"""Adapted dense layers as products with their adapters inside, as those of the experts: see `products.py`.

Layers that read the same input (query, key and value; gate and up) are one product, [x, x A'] [W, s B]', with A and B
of each in rows and columns of its own; and backwards one too, [g, g s B] [W; A]. An RMS norm before them and a rotary
embedding behind them are in the same function, and a gated MLP is one as a whole: what an elementwise pass gives is
made again in the backward pass, and not kept.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from ernie_pipeline.models.grouped.adapter_ops import Part, write_parts
from ernie_pipeline.models.grouped.dense_ops import Norm, add_low_rank, rms_norm_backward, with_low_rank
from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline.models.grouped.fused_ops import rotate, swiglu_backward, swiglu_into
from ernie_pipeline.models.memory import round_up

ALIGNED = 8
"""Columns after which another layer's may begin: the product on CUDA wants rows at multiples of 16 bytes."""


class Adapted(NamedTuple):
    """A layer's quantized `weight` [outputs, inputs], and its adapter's `lora_A` [rank, inputs] and `lora_B` [outputs,
    rank]."""

    weight: Any
    lora_A: torch.Tensor
    lora_B: torch.Tensor
    scale: float


class Rotary(NamedTuple):
    """The rotary embedding of what the first `layers` of several give, heads of `size`; see `apply_rotary`."""

    cos: torch.Tensor
    sin: torch.Tensor
    size: int
    layers: int


class AugmentedWeight(NamedTuple):
    """[[W, s B], [A, .]] of layers that read the same input: [outputs + width, inputs + width]."""

    values: torch.Tensor
    rows: list[slice]
    """Of the outputs, those of each layer."""
    columns: list[slice]
    """Of the width, those of each layer; what aligns them is left out."""
    held: bool
    """Whether it is there anyway, and so may be kept until the backward pass."""

    @property
    def outputs(self) -> int:
        """Of all layers."""
        return self.rows[-1].stop  # type: ignore[no-any-return]

    @property
    def inputs(self) -> int:
        """Of each layer."""
        return self.values.shape[1] - self.values.shape[0] + self.outputs

    @property
    def lora_A(self) -> torch.Tensor:
        """[width, inputs]"""
        return self.values[self.outputs :, : self.inputs]

    @property
    def lora_B(self) -> torch.Tensor:
        """[outputs, width], multiplied by the scale."""
        return self.values[: self.outputs, self.inputs :]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, outputs]: `rows` [rows, inputs + width] times [W, s B]'."""
        return rows @ self.values[: self.outputs].t()

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """[rows, inputs]: `grad` [rows, outputs + width] times [W; A]."""
        return grad @ self.values[:, : self.inputs]


def augmented_shape(layers: Sequence[Adapted]) -> tuple[int, int]:
    """That of `augmented`'s values."""
    width = sum(round_up(len(layer.lora_A), ALIGNED) for layer in layers)
    outputs = sum(len(layer.lora_B) for layer in layers)
    return outputs + width, layers[0].lora_A.shape[1] + width


@torch.no_grad()
def augmented(layers: Sequence[Adapted], dtype: torch.dtype) -> AugmentedWeight:
    """With the adapters' values of now. The weights are dequantized, unless `keep_dequantized` has done so."""
    rows = [slice(*ends) for ends in pairwise(accumulate((len(layer.lora_B) for layer in layers), initial=0))]
    starts = accumulate((round_up(len(layer.lora_A), ALIGNED) for layer in layers), initial=0)
    columns = [slice(start, start + len(layer.lora_A)) for start, layer in zip(starts, layers, strict=False)]
    kept, shape = getattr(layers[0].weight, "dequantized", None), augmented_shape(layers)
    if kept is not None and (kept.shape, kept.dtype) == (shape, dtype):
        weight = AugmentedWeight(kept, rows, columns, held=True)
    else:
        values = torch.empty(shape, dtype=dtype, device=layers[0].weight.device)
        weight = AugmentedWeight(values, rows, columns, held=False)
        for layer, own in zip(layers, rows, strict=True):
            dequantize(layer.weight, values[own])
    parts = [
        Part(layer.lora_A[None], layer.lora_B[None], layer.scale, own_rows.start, own_columns.start)
        for layer, own_rows, own_columns in zip(layers, rows, columns, strict=True)
    ]
    write_parts(weight.lora_A[None], weight.lora_B[None], parts)
    return weight


def lora_linears(
    x: torch.Tensor, layers: Sequence[Adapted], norm: Norm | None = None, rotary: Rotary | None = None
) -> tuple[torch.Tensor, ...]:
    """For each layer x W' + scale (x A') B' of x [rows, inputs] (Hu et al. 2021, "LoRA", equation 3), in x's type.

    Where there is a rotary embedding, the first layers' rotated. Where there is a norm, of x normalized; x itself comes
    last then, so that the gradient of what is added to it is summed with the norm's in one pass.
    """
    outs: tuple[torch.Tensor, ...] = _LoraLinears.apply(x, layers, norm, rotary, *_lora(layers))  # type: ignore[no-untyped-call]
    return outs


def lora_mlp(x: torch.Tensor, gate_up: Sequence[Adapted], down: Adapted) -> torch.Tensor:
    """down(silu(gate(x)) * up(x)) of x [rows, inputs] (Shazeer 2020, "GLU Variants Improve Transformer", equation 6).

    It keeps what gate and up give for the backward pass, and no activation.
    """
    out: torch.Tensor = _LoraMLP.apply(x, gate_up, down, *_lora([*gate_up, down]))  # type: ignore[no-untyped-call]
    return out


def rms_norm(x: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, inputs] normalized, and x itself, see `lora_linears`."""
    both: tuple[torch.Tensor, torch.Tensor] = _RMSNorm.apply(x, norm)  # type: ignore[no-untyped-call]
    return both


def _lora(layers: Sequence[Adapted]) -> list[torch.Tensor]:
    return [tensor for layer in layers for tensor in (layer.lora_A, layer.lora_B)]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, norm: Norm) -> Any:  # type: ignore[override]
        ctx.set_materialize_grads(False)  # x itself may be of no use to anybody
        ctx.norm = norm
        ctx.save_for_backward(x)
        return F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype), norm.epsilon), x

    @staticmethod
    def backward(ctx: Any, grad: Any, grad_x: Any) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return rms_norm_backward(x, ctx.norm, grad, grad_x, again=False)[0], None


class _LoraLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, layers: Any, norm: Norm | None, rotary: Rotary | None, *lora: Any) -> Any:  # type: ignore[override]
        weight = augmented(layers, x.dtype)
        rows, low_rank = with_low_rank(x, weight.lora_A, norm)
        out = weight.forward(rows)
        if rotary is not None:
            heads = out[:, : weight.rows[rotary.layers - 1].stop].view(len(out), -1, rotary.size)
            rotate(heads, rotary.cos, rotary.sin, heads)
        ctx.layers, ctx.norm, ctx.rotary, ctx.weight = layers, norm, rotary, weight if weight.held else None
        ctx.save_for_backward(x, low_rank)
        outs = [out[:, own] for own in weight.rows]
        return tuple(outs) if norm is None else (*outs, x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # type: ignore[override]
        x, low_rank = ctx.saved_tensors
        weight = ctx.weight or augmented(ctx.layers, x.dtype)
        grad, grad_low_rank = _side_by_side(grads[: len(ctx.layers)], weight, ctx.rotary)
        grad_x = weight.backward(grad)
        if ctx.norm is not None:
            grad_x, x = rms_norm_backward(x, ctx.norm, grad_x, grads[-1], again=True)
        grad_lora = _grad_lora(ctx.layers, weight, x, low_rank, grad, grad_low_rank)
        return grad_x, None, None, None, *grad_lora


def _side_by_side(
    grads: Sequence[torch.Tensor], weight: AugmentedWeight, rotary: Rotary | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the layers' outputs, and beside them what B makes of them; and the latter alone."""
    if len(grads) == 1 and rotary is None:
        return with_low_rank(grads[0], weight.lora_B.t())
    grad = grads[0].new_empty(len(grads[0]), len(weight.values))
    for place, (own, rows) in enumerate(zip(grads, weight.rows, strict=True)):
        if rotary is not None and place < rotary.layers:
            heads, out = (part.reshape(len(grad), -1, rotary.size) for part in (own, grad[:, rows]))
            rotate(heads, rotary.cos, rotary.sin, out, back=True)
        else:
            grad[:, rows] = own
    return grad, add_low_rank(grad, weight.lora_B.t())


class _LoraMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, gate_up: Any, down: Any, *lora: Any) -> torch.Tensor:  # type: ignore[override]
        weight = augmented(gate_up, x.dtype)
        rows, in_low_rank = with_low_rank(x, weight.lora_A)
        both = weight.forward(rows)
        ctx.gate_up, ctx.down, ctx.weights = gate_up, down, [weight if weight.held else None]
        del weight, rows

        weight = augmented([down], x.dtype)
        active = both.new_empty(len(both), weight.values.shape[1])
        gate, up = both.chunk(2, dim=1)
        swiglu_into(gate, up, None, active)
        down_low_rank = add_low_rank(active, weight.lora_A)
        ctx.weights.append(weight if weight.held else None)
        ctx.save_for_backward(x, both, in_low_rank, down_low_rank)
        return weight.forward(active)

    @staticmethod
    def backward(ctx: Any, grad_out: Any) -> Any:  # type: ignore[override]
        x, both, in_low_rank, down_low_rank = ctx.saved_tensors
        gate, up = both.chunk(2, dim=1)

        weight = ctx.weights[1] or augmented([ctx.down], x.dtype)
        grad, grad_low_rank = _side_by_side([grad_out], weight, None)
        grad_active, active = weight.backward(grad), torch.empty_like(gate, memory_format=torch.contiguous_format)
        grad_both = both.new_empty(len(both), augmented_shape(ctx.gate_up)[0])
        swiglu_backward(gate, up, None, grad_active, grad_both, active)
        grad_down = _grad_lora([ctx.down], weight, active, down_low_rank, grad, grad_low_rank)
        del weight, active, grad, grad_active

        weight = ctx.weights[0] or augmented(ctx.gate_up, x.dtype)
        grad_low_rank = add_low_rank(grad_both, weight.lora_B.t())
        grad_in = _grad_lora(ctx.gate_up, weight, x, in_low_rank, grad_both, grad_low_rank)
        return weight.backward(grad_both), None, None, *grad_in, *grad_down


def _grad_lora(
    layers: Sequence[Adapted],
    weight: AugmentedWeight,
    x: torch.Tensor,
    low_rank: torch.Tensor,
    grad: torch.Tensor,
    grad_low_rank: torch.Tensor,
) -> list[torch.Tensor]:
    """The gradients of each layer's A and B. One product for the A of all, and one for the B: it has what one layer's
    gradient makes of another's low rank too, which costs less than a product for each."""
    grad_A = _product_in_fp32(grad_low_rank.t(), x)
    grad_B = _product_in_fp32(grad[:, : weight.outputs].t(), low_rank)
    grads: list[torch.Tensor] = []
    for layer, rows, columns in zip(layers, weight.rows, weight.columns, strict=True):
        own = grad_B[rows, columns]
        grads += [grad_A[columns], own if layer.scale == 1 else own * layer.scale]
    return grads


def _product_in_fp32(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """As it is summed: the gradients are fp32, and no kernel casts what this one has rounded."""
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left @ right
