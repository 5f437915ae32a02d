"""A merged model on a CPU: where it fits, and how its products are made as fast as the CPU can.

torch makes products in fp32 with Intel's MKL, which on an AMD CPU leaves AVX-512 alone: 105 GFLOP/s on a core of an
EPYC with Zen 5, where oneDNN, which torch carries too, makes 220. On Intel's the two are alike.
"""

from typing import Any

import psutil
import torch
from torch import nn

from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.memory_plan import row_bytes
from ernie_pipeline.models.generation.merged import Generator, base_model, merge, merged_weights, only_argmax

SHARE = 0.5
"""Of the memory that is free, what a merged model and its cache may take."""


def cpu_generator(model: Any, rows: int, length: int) -> Generator:
    """A backend's `model` on a CPU merged, if that fits into memory and its answers are the highest logits; else
    `model` itself, whose 4-bit weights are dequantized at each step.

    `rows` are the prompts that are answered at a time, `length` the tokens of the longest with its answer.
    """
    base = base_model(model)
    if not only_argmax(base.generation_config):
        return Generator(model, "4-bit")
    weights, dtype = merged_weights(base), base.get_input_embeddings().weight.dtype
    needed = weights.rest + sum(weights.experts.values()) + rows * row_bytes(base.config, length, dtype)
    if needed > SHARE * psutil.virtual_memory().available:
        return Generator(model, "4-bit")
    merged = merge(model)
    if dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        _speed_up(merged)
    return Generator(merged, f"merged {str(dtype).removeprefix('torch.')}")


class OneDnnLinear(nn.Module):
    """An `nn.Linear` for inference, its product by oneDNN."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return _product(hidden, self.weight, self.bias)


class OneDnnExperts(nn.Module):
    """The experts of one layer: each takes its own tokens. Takes and gives what `FusedExperts` does."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor, act_fn: Any):
        super().__init__()
        self.gate_up_proj = nn.Parameter(gate_up, requires_grad=False)
        self.down_proj = nn.Parameter(down, requires_grad=False)
        self.act_fn = act_fn

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        of_pair = chosen.flatten()
        order = of_pair.argsort(stable=True)  # (token, slot) pairs, expert by expert
        counts = torch.bincount(of_pair, minlength=len(self.gate_up_proj)).tolist()
        outputs = []
        for expert, rows in enumerate(torch.split(hidden[order // chosen.shape[1]], counts)):
            if len(rows):
                gate, up = _product(rows, self.gate_up_proj[expert]).chunk(2, dim=-1)
                outputs.append(_product(self.act_fn(gate) * up, self.down_proj[expert]))
        both = torch.empty(len(order), hidden.shape[-1], dtype=hidden.dtype).index_copy_(0, order, torch.cat(outputs))
        return torch.bmm(weights.to(hidden.dtype)[:, None], both.view(*chosen.shape, -1))[:, 0]


def _speed_up(model: nn.Module) -> None:
    """Give a merged model's products to oneDNN, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, OneDnnLinear(child.weight, child.bias))
            elif isinstance(child, FusedExperts):
                setattr(parent, name, OneDnnExperts(child.gate_up_proj, child.down_proj, child.act_fn))


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product
