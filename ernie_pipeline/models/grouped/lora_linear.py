"""PEFT's adapted 4-bit linear layers, computed by `dense_products.py`: a few launches where PEFT's own has some thirty.

PEFT keeps its modules, their names and their file format; only what they compute in is replaced. PEFT casts the input
to fp32 and lets autocast cast it back; here the fp32 weights of the adapter are rounded to the input's type, once.
"""

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.grouped.dense_ops import Norm
from ernie_pipeline.models.grouped.dense_products import (
    Adapted,
    Rotary,
    augmented,
    augmented_shape,
    lora_linears,
    lora_mlp,
    rms_norm,
)
from ernie_pipeline.models.grouped.fused_ops import apply_rotary, swiglu


def speed_up_adapters(model: nn.Module) -> int:
    """Let every adapted `Linear4bit` of a PEFT model compute with `lora_linears`; how many there are."""
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and isinstance(m.get_base_layer(), Linear4bit)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def is_sped_up(layer: Any) -> bool:
    """Whether `speed_up_adapters` found it."""
    return getattr(getattr(layer, "forward", None), "__func__", None) is _forward


def dequantized_bytes(layers: Sequence[Any]) -> int:
    """What `keep_dequantized` takes in 16 bits, the adapters' rows and columns included."""
    return 2 * math.prod(augmented_shape([_adapted(layer) for layer in layers]))


def keep_dequantized(layers: Sequence[Any]) -> None:
    """Hold the weights of layers that are computed together in 16 bits too, so that no pass dequantizes them."""
    weight = layers[0].base_layer.weight
    weight.dequantized = augmented([_adapted(layer) for layer in layers], weight.quant_state.dtype).values


def drop_dequantized(layers: Sequence[Any]) -> None:
    """Give that memory back."""
    layers[0].base_layer.weight.dequantized = None


def project(
    x: torch.Tensor, *layers: Any, norm: Norm | None = None, rotary: Rotary | None = None
) -> Sequence[torch.Tensor]:
    """What each of the `layers` makes of x [rows, inputs], see `lora_linears`; each by itself, if one of them is not
    sped up or has a bias."""
    if _together(layers):
        return lora_linears(x, [_adapted(layer) for layer in layers], norm, rotary)
    rest: list[torch.Tensor] = []
    if norm is not None:
        x, *rest = rms_norm(x, norm)
    outs = [layer(x) for layer in layers]
    if rotary is not None:
        heads = [out.view(len(x), -1, rotary.size) for out in outs[: rotary.layers]]
        outs[: rotary.layers] = [apply_rotary(own, rotary.cos, rotary.sin).flatten(1) for own in heads]
    return [*outs, *rest]


def gated_mlp(x: torch.Tensor, gate: Any, up: Any, down: Any) -> torch.Tensor:
    """down(silu(gate(x)) * up(x)) of x [rows, inputs], in one function if all three layers are sped up."""
    if _together((gate, up, down)):
        return lora_mlp(x, [_adapted(gate), _adapted(up)], _adapted(down))
    out: torch.Tensor = down(swiglu(*project(x, gate, up)))
    return out


def _together(layers: Sequence[Any]) -> bool:
    return all(is_sped_up(layer) and not layer.disable_adapters and layer.base_layer.bias is None for layer in layers)


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
