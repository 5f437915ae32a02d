"""What stands between a model's products, each as one pass over memory on CUDA and in torch's operations elsewhere.

The gated activation, the sum over a token's experts, the rotary embedding, and the loss over a large vocabulary. Sums
are in fp32 and in a fixed order, so a step gives the same bits each time.
"""

from typing import Any

import torch
from torch.nn import functional as F

try:
    import triton

    from ernie_pipeline.models.grouped import kernels
except ImportError:  # no CUDA build of torch
    triton = None

NOT_COUNTED = -100
"""torch's label of a token that a loss passes over."""


def gated(gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor | None, out: torch.Tensor) -> None:
    """out[:, :I] = weight * silu(gate) * up, for `gate` and `up` [rows, I] and a `weight` [rows] or none."""
    rows, inner = gate.shape
    if not gate.is_cuda:
        active = F.silu(gate.float()) * up.float()
        out[:, :inner] = active if weight is None else weight.float()[:, None] * active
        return
    kernels.gated[(rows,)](
        gate,
        up,
        gate if weight is None else weight,
        out,
        gate.stride(0),
        up.stride(0),
        out.stride(0),
        INNER=inner,
        WEIGHTED=weight is not None,
        BLOCK=triton.next_power_of_2(inner),
        num_warps=4,
    )


def gated_backward(
    gate: torch.Tensor,
    up: torch.Tensor,
    weight: torch.Tensor | None,
    grad: torch.Tensor,
    grads: torch.Tensor,
    again: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """From `grad` [rows, I], the gradient of `gated`'s output, those of `gate` and `up`, side by side in grads[:, :2I].

    Returns that of `weight` [rows]. `gated`'s output is made once more into `again` [rows, I], where there is one.
    """
    rows, inner = gate.shape
    if not gate.is_cuda:
        if again is not None:
            gated(gate, up, weight, again)
        sigmoid = torch.sigmoid(gate.float())
        silu, total = gate.float() * sigmoid, grad.float()
        of_weight = None if weight is None else (total * silu * up.float()).sum(dim=1).to(weight.dtype)
        total = total if weight is None else total * weight.float()[:, None]
        both = [total * up.float() * (sigmoid + silu * (1 - sigmoid)), total * silu]
        grads[:, : 2 * inner] = torch.cat(both, dim=1)
        return of_weight
    of_weight = None if weight is None else torch.empty_like(weight)
    kernels.gated_backward[(rows,)](
        gate,
        up,
        gate if weight is None else weight,
        grad,
        grads,
        grads if of_weight is None else of_weight,
        grads if again is None else again,
        gate.stride(0),
        up.stride(0),
        grad.stride(0),
        grads.stride(0),
        0 if again is None else again.stride(0),
        INNER=inner,
        WEIGHTED=weight is not None,
        AGAIN=again is not None,
        BLOCK=triton.next_power_of_2(inner),
        num_warps=4,
    )
    return of_weight


class Gated(torch.autograd.Function):
    """silu(gate) * up of [rows, I] each; it keeps its inputs and no more."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        gated(gate, up, None, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        both = gate.new_empty(len(gate), 2 * gate.shape[1])
        gated_backward(gate, up, None, grad, both)
        return both.chunk(2, dim=1)


def summed(slots: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[tokens, width]: for each token the sum of its rows `places` [tokens, k] of `slots` [rows, width]."""
    if not slots.is_cuda:
        return slots.float()[places].sum(dim=1).to(slots.dtype)
    tokens, k = places.shape
    width = slots.shape[1]
    out = slots.new_empty(tokens, width)
    kernels.summed[(tokens,)](
        slots,
        places,
        out,
        slots.stride(0),
        W=width,
        SLOTS=k,
        BLOCK=triton.next_power_of_2(width),
        num_warps=8,
    )
    return out


class Rotated(torch.autograd.Function):
    """Neighbouring values as a pair, turned by an angle: heads [tokens, heads, size], `cos` and `sin` [tokens, size/2].

    The rotary embedding (Su et al. 2021, "RoFormer", equation 34) in the order of values that ERNIE keeps.
    """

    @staticmethod
    def forward(ctx: Any, heads: Any, cos: Any, sin: Any) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos, sin)
        return _turned(heads, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    if not heads.is_cuda:
        first, second = heads.float().view(*heads.shape[:-1], -1, 2).unbind(-1)
        c, s = cos[:, None], sin[:, None]
        return torch.stack((first * c - second * s, second * c + first * s), dim=-1).flatten(-2).to(heads.dtype)
    tokens, number, size = heads.shape
    if heads.stride()[1:] != (size, 1):
        heads = heads.contiguous()
    out = heads.new_empty(heads.shape)
    kernels.turned[(tokens,)](heads, cos, sin, out, heads.stride(0), HEADS=number, HALF=size // 2, num_warps=1)
    return out


def loss_and_gradient(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the negative log-likelihood in nats over the rows whose label is not `NOT_COUNTED`, a scalar in fp32.

    `logits` [rows, vocabulary] become their own gradient: softmax less one at the label, or zero.
    """
    if not logits.is_cuda:
        counted = labels != NOT_COUNTED
        wanted = labels.clamp(min=0)[:, None]
        logs = F.log_softmax(logits.float(), dim=1)
        total = -(logs.gather(1, wanted)[:, 0] * counted).sum()
        gradient = logs.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=logs.dtype))
        logits.copy_(gradient * counted[:, None])
        return total
    losses = torch.empty(len(labels), device=logits.device)
    kernels.loss_and_gradient[(len(labels),)](
        logits, labels, losses, V=logits.shape[1], IGNORED=NOT_COUNTED, BLOCK=8192, num_warps=16
    )
    return losses.sum()
