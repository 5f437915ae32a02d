"""An adapted 4-bit linear layer as one autograd function: six launches where PEFT's own has some thirty, both ways.

PEFT keeps its modules, their names and their file format; only what they compute in is replaced. PEFT casts the input
to fp32 and lets autocast cast it back; here the fp32 weights of the adapter are rounded to the input's type, once.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn

from ernie_pipeline.engines.nf4 import unpack


def speed_up_adapters(model: nn.Module) -> int:
    """Let every adapted `Linear4bit` of a PEFT model compute with `lora_linear`; how many there are."""
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and isinstance(m.get_base_layer(), Linear4bit)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    base, (name,) = layer.base_layer, layer.active_adapters
    if layer.disable_adapters:
        out: torch.Tensor = base(x)
        return out
    first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
    return lora_linear(x, base.weight, base.bias, first, second, layer.scaling[name])


def lora_linear(
    x: torch.Tensor, weight: Any, bias: torch.Tensor | None, first: torch.Tensor, second: torch.Tensor, scale: float
) -> torch.Tensor:
    """x W' + bias + scale (x A') B' for x [..., inputs], a quantised `weight` [outputs, inputs], A `first` [rank,
    inputs] and B `second` [outputs, rank] (Hu et al. 2021, "LoRA", equation 3), in x's type.
    """
    flat = x.reshape(-1, x.shape[-1])
    out: torch.Tensor = _LoraLinear.apply(flat, first, second, weight, scale)  # type: ignore[no-untyped-call]
    return (out if bias is None else out + bias).view(*x.shape[:-1], -1)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, first: Any, second: Any, weight: Any, scale: float) -> torch.Tensor:  # type: ignore[override]
        a, b = first.to(x.dtype), (second if scale == 1 else second * scale).to(x.dtype)
        out: torch.Tensor = x @ _unpacked(weight, x).t()
        ranks = x @ a.t()
        out.addmm_(ranks, b.t())
        ctx.weight, ctx.scale = weight, scale
        ctx.save_for_backward(x, ranks, a, b)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        x, ranks, a, b = ctx.saved_tensors
        of_ranks = grad @ b
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = grad @ _unpacked(ctx.weight, x)
            of_x.addmm_(of_ranks, a)
        of_b = grad.t() @ ranks
        return of_x, of_ranks.t() @ x, of_b if ctx.scale == 1 else of_b * ctx.scale, None, None


def _unpacked(weight: Any, like: torch.Tensor) -> torch.Tensor:
    out = like.new_empty(weight.quant_state.shape)
    unpack(weight, out)
    return out
