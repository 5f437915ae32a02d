"""A linear layer's weight as the layer applies it: its 4 bits dequantized, its adapter added."""

from typing import Any

import torch
from torch import nn

from ernie_pipeline.utils.errors import PipelineError


@torch.no_grad()
def dense_weight(layer: Any) -> torch.Tensor:
    """The weight [out, in] of an `nn.Linear`, 4-bit or not, with or without PEFT's LoRA around it.

    The adapter's product is made and added in fp32 and the sum rounded once, to the dtype to which the base weight
    is dequantized. A weight without adapter that is not quantized is returned itself, not a copy. Raises
    `PipelineError` for an adapter that is no plain LoRA.
    """
    base = getattr(layer, "base_layer", layer)
    weight = _dequantized(base.weight)
    if base is layer or layer.disable_adapters:
        return weight
    sum_ = weight.float()
    for name in layer.active_adapters:
        if name in layer.lora_A:
            if name in layer.lora_variant or layer.lora_bias[name]:
                raise PipelineError(f"adapter {name} is no plain LoRA (a variant, or with a bias): it cannot be merged")
            up, down = layer.lora_B[name].weight.float(), layer.lora_A[name].weight.float()
            sum_ = sum_ + (up @ down) * layer.scaling[name]  # Hu et al. 2021: A [r, in], B [out, r]
    return sum_.to(weight.dtype)


def is_linear(layer: Any) -> bool:
    """Whether `dense_weight` knows the layer."""
    return isinstance(getattr(layer, "base_layer", layer), nn.Linear)


def _dequantized(weight: torch.Tensor) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    state = getattr(weight, "quant_state", None)
    return weight.detach() if state is None else dequantize_4bit(weight.detach(), state)  # type: ignore[no-any-return]
