"""The router of a layer, nearly as exact as in fp32, at the speed of 16-bit products.

transformers computes the router in fp32, so that experts are not chosen by rounding. An fp32 product does not run on a
GPU's matrix units; but the hidden states are bfloat16 anyway, and fp32 weights are the sum of three bfloat16 parts of 8
bits each. The products of the parts are exact, and they are added in fp32. (On an H100, whose matrix units add a little
less exactly than its other ones: an error of up to 1.5e-5 in logits of up to 5, where fp32 makes 4e-6.)
"""

from typing import Any

import torch
from torch.nn import functional as F


def choose_experts(gate: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and numbers [tokens, k] of the experts that `gate`, an `Ernie4_5_MoeTopKRouter`, chooses for each token.

    The balancing bias is in what is chosen and not in the weights, which add up to one.
    """
    if hidden.dtype != torch.bfloat16:
        _, weights, chosen = gate(hidden)
        return weights, chosen
    logits: torch.Tensor = RouterLogits.apply(hidden, gate.weight)  # type: ignore[no-untyped-call]
    scores = F.softmax(logits, dim=1)
    chosen = torch.topk(gate.moe_statics(scores), gate.top_k, dim=1).indices
    weights = scores.gather(1, chosen)
    return (weights / weights.sum(dim=1, keepdim=True).clamp(min=gate.norm_min)).to(hidden.dtype), chosen


class RouterLogits(torch.autograd.Function):
    """`hidden` [tokens, size] in bfloat16 times a frozen fp32 `weight` [experts, size], transposed, in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(weight)
        logits = _product(hidden, torch.cat(_parts(weight, 3)).t())
        return logits.view(len(hidden), 3, len(weight)).flip(1).sum(dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        """Rounded to bfloat16 in the end, so two parts of each factor do, without the product of the small ones."""
        (weight,) = ctx.saved_tensors
        large, small = _parts(grad, 2)
        first, second = _parts(weight, 2)
        return torch.cat([large, small, large], dim=1) @ torch.cat([first, first, second]), None


def _parts(tensor: torch.Tensor, number: int) -> list[torch.Tensor]:
    """bfloat16 tensors whose sum is `tensor`, up to 8 bits of it each."""
    parts, rest = [], tensor.float()
    for _ in range(number):
        parts.append(rest.to(torch.bfloat16))
        rest = rest - parts[-1]
    return parts


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x y in fp32, not rounded to their bfloat16."""
    return torch.mm(x, y, out_dtype=torch.float32) if x.is_cuda else x.float() @ y.float()
