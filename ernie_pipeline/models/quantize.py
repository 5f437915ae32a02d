"""4-bit base weights: bitsandbytes' `Linear4bit` in the place of every exact `nn.Linear` but the output layer.

A class under `nn.Linear` computes something of its own, as some routers do: it is left alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ernie_pipeline.utils.errors import PipelineError

COMPUTE_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

BLOCK_SIZES = (64, 32)
"""Weights that share a constant: 64 as in QLoRA, or 32 where a row is no multiple of 64. A block that spans two rows is
unpacked with the wrong constants by bitsandbytes 0.50's AVX-512 code, and rightly by its CUDA code."""


def quantize_linears(model: nn.Module, quantization: Mapping[str, Any], device: torch.device) -> int:
    """Quantize in place, layer by layer, onto `device`; how many layers. Output layer and embeddings stay as they are.

    `quantization` holds the recipe's section: type, double, compute_dtype. Dettmers et al. 2023, "QLoRA", section 3.
    Raises `PipelineError` for a layer whose rows no block size divides.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child is not head
    ]
    for parent, name in places:
        linear = getattr(parent, name)
        quantized = empty_linear4bit(linear, quantization)
        quantized.weight = four_bits(linear.weight, quantization, quantized).to(device)
        if linear.bias is not None:
            quantized.bias = nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        setattr(parent, name, quantized)
    return len(places)


def empty_linear4bit(linear: nn.Linear, quantization: Mapping[str, Any]) -> Any:
    """A `Linear4bit` of that layer's shape, without weights yet."""
    from bitsandbytes.nn import Linear4bit

    with torch.device("meta"):
        quantized = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=COMPUTE_DTYPES[quantization["compute_dtype"]],
            compress_statistics=quantization["double"],
            quant_type=quantization["type"],
        )
    # On a CPU with AVX512-BF16 bitsandbytes would repack the weights at the first forward pass outside training and
    # compute in bf16 whatever the recipe says, and it fails where in_features is no multiple of 64.
    quantized.support_avx512bf16_for_cpu = False
    return quantized


def block_size(weight: torch.Tensor) -> int:
    """How many values of `weight` [..., inputs] share a constant. Raises `PipelineError` where none is faithful."""
    for size in BLOCK_SIZES:
        if weight.shape[-1] % size == 0:
            return size
    raise PipelineError(
        f"a layer of the base model has {weight.shape[-1]} inputs, which is no multiple of {BLOCK_SIZES[-1]}: it "
        "cannot be quantized to 4 bits faithfully; set base_model.name to another model"
    )


def four_bits(weight: torch.Tensor, quantization: Mapping[str, Any], module: nn.Module) -> Any:
    """The `Params4bit` of `module`, which quantizes `weight` when it is moved to a device, be it its own."""
    from bitsandbytes.nn import Params4bit

    return Params4bit(
        weight.detach(),
        requires_grad=False,
        blocksize=block_size(weight),
        compress_statistics=quantization["double"],
        quant_type=quantization["type"],
        module=module,
    )
