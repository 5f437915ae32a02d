"""A router's logits on the matrix units, as exact as in fp32, in which transformers computes them elsewhere.

The hidden states are bfloat16 and an fp32 weight is the sum of three bfloat16 parts, so that the parts' products are
exact and only their sums are not. Matrix units cut a sum off at every step, which adds up with the depth (an error of
1.6e-5 in logits of up to 5, on an H100, where fp32 makes 3.4e-6): a quarter of it at a time makes that of fp32.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ernie_pipeline.models.routing import routers

PARTS, CHUNKS = 3, 4


def split_routers(model: nn.Module) -> None:
    """Let `choose_experts` find the parts of each router's frozen weight."""
    for router in routers(model):
        weight: torch.Tensor = router.weight  # type: ignore[assignment]
        router.register_buffer("parts", torch.cat(_parts(weight.detach(), PARTS)), persistent=False)


def choose_experts(router: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and numbers [tokens, k] of the experts that transformers' `router` chooses for each token."""
    if hidden.dtype != torch.bfloat16 or not hasattr(router, "parts"):
        return router(hidden)[1:]  # type: ignore[no-any-return]
    with _Linear(hidden, router.parts):
        return router(hidden)[1:]  # type: ignore[no-any-return]


class _Linear(TorchFunctionMode):
    """Inside, the router's own F.linear(hidden.float(), weight.float()) is `_Logits`; all else is as it is."""

    def __init__(self, hidden: torch.Tensor, parts: torch.Tensor):
        super().__init__()  # type: ignore[no-untyped-call]
        self.hidden, self.parts = hidden, parts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and args[0] is self.hidden and function is torch.Tensor.float:
            return self.hidden
        if args and args[0] is self.hidden and function is F.linear:
            return _Logits.apply(self.hidden, self.parts)  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _Logits(torch.autograd.Function):
    """In fp32, `hidden` [tokens, size] times the sum of `parts` [PARTS x experts, size], transposed."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, parts: Any) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(parts)
        chunks = hidden.unflatten(1, (CHUNKS, -1)).transpose(0, 1), parts.t().unflatten(0, (CHUNKS, -1))
        return _products(*chunks).view(CHUNKS, len(hidden), PARTS, -1).sum((0, 2))

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        """Rounded to bfloat16 in the end, so two parts of each factor do, without the product of the small ones."""
        (parts,) = ctx.saved_tensors
        large, small = _parts(grad, 2)
        experts = grad.shape[1]
        return torch.cat([small, large, large], dim=1) @ torch.cat([parts[:experts], parts[: 2 * experts]]), None


def _parts(tensor: torch.Tensor, number: int) -> list[torch.Tensor]:
    """bfloat16 tensors whose sum is `tensor`, up to 8 bits of it each; the largest first."""
    parts, rest = list[torch.Tensor](), tensor.float()
    for _ in range(number):
        parts.append(rest.to(torch.bfloat16))
        rest = rest - parts[-1]
    return parts


def _products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of each of a batch, in fp32 and not rounded to their bfloat16."""
    return torch.bmm(x, y, out_dtype=torch.float32) if x.is_cuda else x.float() @ y.float()
