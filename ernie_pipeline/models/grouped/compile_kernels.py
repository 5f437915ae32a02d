"""Kernels compiled while a base is quantized, into the cache where Triton keeps them.

Triton compiles a kernel when it is launched first: 20 seconds of a first step, in which the GPU has nothing to do.
Which ones a training launches, by its model's shapes, is on no list: a small model of the same layers trains a little.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.documents import document
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.quantize_checkpoint import complete, model_skeleton
from ernie_pipeline.models.peft.backend import OWN_MODEL_TYPE
from ernie_pipeline.models.quantize import four_bits, quantize_linears
from ernie_pipeline.recipe.execution import PROFILES
from ernie_pipeline.utils.timeline import part

if TYPE_CHECKING:
    from ernie_pipeline.models.grouped.backend import GroupedModel

ROWS_OF_AN_EXPERT = 96, 480
"""On average in the steps computed: the reference's steps of 8 samples, whose experts are read in 4 bits, and larger
ones, whose experts are dequantized first. At the real size these are 1,024 and 5,120 tokens."""
TOKENS = 128
"""Of a document."""


@torch.no_grad()
def small_base(config: Any, quantization: Mapping[str, Any], device: str) -> Any:
    """A base of zeros in 4 bits on `device`, of the first layer of `config` without experts and the first with them."""
    model = model_skeleton(copy.deepcopy(config), quantization).requires_grad_(False).eval()
    dense = [layer for layer in model.model.layers if not hasattr(layer.mlp, "experts")]
    routed = [layer for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    model.model.layers = nn.ModuleList(dense[:1] + routed[:1])
    model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.zero_()
    complete(model, device)
    for block in (layer.mlp for layer in routed[:1]):
        stacks = [four_bits(getattr(block.experts, fused), quantization, block.experts) for fused in FUSED_PROJECTIONS]
        block.experts = GroupedExperts(*(stack.to(device) for stack in stacks))
    quantize_linears(model, quantization, torch.device(device))
    model.config.model_type = OWN_MODEL_TYPE
    return model


def compile_kernels(model: "GroupedModel") -> None:
    """Train and evaluate a model with an adapter a little; it is of no use then.

    Where memory runs out, what is left to compile is so at its first launch.
    """
    with part("compile kernels"):
        config = model.base.config
        tokens = [rows * config.moe_num_experts // config.moe_k for rows in ROWS_OF_AN_EXPERT]
        steps = [[document([0] * TOKENS)] * (number // TOKENS) for number in tokens]
        execution = PROFILES["80gb"].model_copy(update={"micro_batch": len(steps[-1])})
        training = model.training(execution, [[TOKENS] * len(step) for step in steps])
        model.before_generating()  # nothing is captured
        if all(training.forward_backward(step, 1.0) is not None for step in steps):
            model.loss_sum(steps[-1])
