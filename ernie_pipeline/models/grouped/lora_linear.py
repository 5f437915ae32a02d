"""Adapted 4-bit linear layers as one autograd function: a few launches where PEFT's own has some thirty, both ways.

PEFT keeps its modules, their names and their file format; only what they compute in is replaced. PEFT casts the input
to fp32 and lets autocast cast it back; here the fp32 weights of the adapter are rounded to the input's type, once.
Layers that read the same input (query, key and value; gate and up) are computed together.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn

from ernie_pipeline.models.grouped.dequantize import dequantize


class Adapted(NamedTuple):
    """A layer's quantized `weight` [outputs, inputs], and its adapter's `lora_A` [rank, inputs] and `lora_B` [outputs,
    rank]."""

    weight: Any
    lora_A: torch.Tensor
    lora_B: torch.Tensor
    scale: float


def speed_up_adapters(model: nn.Module) -> int:
    """Let every adapted `Linear4bit` of a PEFT model compute with `lora_linears`; how many there are."""
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and isinstance(m.get_base_layer(), Linear4bit)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def is_sped_up(layer: Any) -> bool:
    """Whether `speed_up_adapters` found it, and its adapter is in use."""
    return getattr(getattr(layer, "forward", None), "__func__", None) is _forward and not layer.disable_adapters


def dequantized_bytes(layers: Sequence[Any]) -> int:
    """What `keep_dequantized` takes in 16 bits."""
    sizes: list[int] = [layer.base_layer.weight.quant_state.shape.numel() for layer in layers]
    return 2 * sum(sizes)


def keep_dequantized(layers: Sequence[Any]) -> None:
    """Hold the weights of layers that are computed together in 16 bits too, so that no pass dequantizes them."""
    weights = [layer.base_layer.weight for layer in layers]
    rows = _spans(weight.quant_state.shape[0] for weight in weights)
    like = torch.empty(0, weights[0].quant_state.shape[1], dtype=weights[0].quant_state.dtype, device=weights[0].device)
    weights[0].dequantized = _dequantized([(weight, 1.0) for weight in weights], rows, like)


def drop_dequantized(layers: Sequence[Any]) -> None:
    """Give that memory back."""
    layers[0].base_layer.weight.dequantized = None


def project(x: torch.Tensor, *layers: Any) -> Sequence[torch.Tensor]:
    """What each of the `layers` makes of x [rows, inputs]; together, if all of them are sped up and none has a bias."""
    if not all(is_sped_up(layer) and layer.base_layer.bias is None for layer in layers):
        return [layer(x) for layer in layers]
    return lora_linears(x, [_adapted(layer) for layer in layers])


def _adapted(layer: Any) -> Adapted:
    (name,) = layer.active_adapters
    return Adapted(layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if layer.disable_adapters:
        base: torch.Tensor = layer.base_layer(x)
        return base
    (out,) = lora_linears(x.reshape(-1, x.shape[-1]), [_adapted(layer)])
    bias = layer.base_layer.bias
    return (out if bias is None else out + bias).view(*x.shape[:-1], -1)


def lora_linears(x: torch.Tensor, layers: Sequence[Adapted]) -> tuple[torch.Tensor, ...]:
    """For each layer x W' + scale (x A') B' of x [rows, inputs] (Hu et al. 2021, "LoRA", equation 3), in x's type."""
    lora = [tensor for layer in layers for tensor in (layer.lora_A, layer.lora_B)]
    frozen = [(layer.weight, layer.scale) for layer in layers]
    outs: tuple[torch.Tensor, ...] = _LoraLinears.apply(x, frozen, *lora)  # type: ignore[no-untyped-call]
    return outs


class _LoraLinears(torch.autograd.Function):
    """The layers' A are rows of one matrix: one product gives what all of them make, `low_rank` [rows, ranks]."""

    @staticmethod
    def forward(ctx: Any, x: Any, frozen: Any, *lora: Any) -> Any:  # type: ignore[override]
        rows = _spans(weight.quant_state.shape[0] for weight, _ in frozen)
        ranks = _spans(len(a) for a in lora[::2])
        lora_A, lora_Bs = x.new_empty(ranks[-1].stop, x.shape[1]), [x.new_empty(b.shape) for b in lora[1::2]]
        scaled = [b if s == 1 else b * s for b, (_, s) in zip(lora[1::2], frozen, strict=True)]
        # one launch for all
        torch._foreach_copy_([*(lora_A[own] for own in ranks), *lora_Bs], [*lora[::2], *scaled])
        out, low_rank = x @ _dequantized(frozen, rows, x).t(), x @ lora_A.t()
        for b, own_rows, own in zip(lora_Bs, rows, ranks, strict=True):
            out[:, own_rows].addmm_(low_rank[:, own], b.t())
        ctx.frozen, ctx.rows, ctx.ranks = frozen, rows, ranks
        ctx.save_for_backward(x, low_rank, lora_A, *lora_Bs)
        return tuple(out[:, own] for own in rows)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # type: ignore[override]
        x, low_rank, lora_A, *lora_Bs = ctx.saved_tensors
        grad_low_rank = torch.empty_like(low_rank)
        for grad, b, own in zip(grads, lora_Bs, ctx.ranks, strict=True):
            grad_low_rank[:, own] = grad @ b
        grad_x = None
        if ctx.needs_input_grad[0]:
            weight = _dequantized(ctx.frozen, ctx.rows, x)
            grad_x = grads[0] @ weight[ctx.rows[0]]
            for grad, own in zip(grads[1:], ctx.rows[1:], strict=True):
                grad_x.addmm_(grad, weight[own])
            grad_x.addmm_(grad_low_rank, lora_A)
        grad_A = _product_in_fp32(grad_low_rank.t(), x)
        grad_lora: list[torch.Tensor] = []
        for grad, own, (_, scale) in zip(grads, ctx.ranks, ctx.frozen, strict=True):
            grad_B = _product_in_fp32(grad.t(), low_rank[:, own])
            grad_lora += [grad_A[own], grad_B if scale == 1 else grad_B * scale]
        return grad_x, None, *grad_lora


def _product_in_fp32(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """As it is summed: the gradients are fp32, and no kernel casts what this one has rounded."""
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left @ right


def _spans(sizes: Any) -> list[slice]:
    """One after the other."""
    return [slice(start, end) for start, end in pairwise(accumulate(sizes, initial=0))]


def _dequantized(frozen: Any, rows: list[slice], like: torch.Tensor) -> torch.Tensor:
    """All weights, each in its own rows."""
    held = getattr(frozen[0][0], "dequantized", None)
    if held is not None and held.dtype == like.dtype and len(held) == rows[-1].stop:
        return held  # type: ignore[no-any-return]
    out = like.new_empty(rows[-1].stop, like.shape[1])
    for (weight, _), own in zip(frozen, rows, strict=True):
        dequantize(weight, out[own])
    return out
