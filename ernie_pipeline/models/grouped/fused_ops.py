"""A model's elementwise and reducing operations, each one pass over memory on CUDA and torch's operations elsewhere.

SwiGLU, the sum over a token's experts, the rotary embedding, and the cross-entropy over a large vocabulary with its
gradient. Sums are in fp32 and in a fixed order, so a step gives the same bits each time.
"""

from typing import Any

import torch
from torch.nn import functional as F

from ernie_pipeline.models.documents import NOT_COUNTED

try:
    import triton

    from ernie_pipeline.models.grouped import kernels
except ImportError:  # no CUDA build of torch
    triton = None


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of [rows, I] each (Shazeer 2020, "GLU Variants Improve Transformer", equation 6).

    Differentiable; it keeps its inputs for the backward pass and no more.
    """
    out: torch.Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        swiglu_into(gate, up, None, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        grad_gate_up = gate.new_empty(len(gate), 2 * gate.shape[1])
        swiglu_backward(gate, up, None, grad, grad_gate_up)
        return grad_gate_up.chunk(2, dim=1)


def swiglu_into(gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor | None, out: torch.Tensor) -> None:
    """out[:, :I] = weight * silu(gate) * up, for `gate` and `up` [rows, I] and a `weight` [rows] or none."""
    rows, inner = gate.shape
    if not gate.is_cuda:
        active = F.silu(gate.float()) * up.float()
        out[:, :inner] = active if weight is None else weight.float()[:, None] * active
        return
    kernels.swiglu[(rows,)](
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


def swiglu_backward(
    gate: torch.Tensor,
    up: torch.Tensor,
    weight: torch.Tensor | None,
    grad: torch.Tensor,
    grad_gate_up: torch.Tensor,
    recomputed: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Write the gradients of gate and up, one beside the other, into grad_gate_up[:, :2I], from `grad` [rows, I], the
    gradient of `swiglu_into`'s output.

    Returns that of `weight` [rows]. The output is made once more into `recomputed` [rows, I], where there is one.
    """
    if not gate.is_cuda:
        if recomputed is not None:
            swiglu_into(gate, up, weight, recomputed)
        return _swiglu_backward_in_torch(gate, up, weight, grad, grad_gate_up)
    rows, inner = gate.shape
    grad_weight = None if weight is None else torch.empty_like(weight)
    kernels.swiglu_backward[(rows,)](
        gate,
        up,
        gate if weight is None else weight,
        grad,
        grad_gate_up,
        grad_gate_up if grad_weight is None else grad_weight,
        grad_gate_up if recomputed is None else recomputed,
        gate.stride(0),
        up.stride(0),
        grad.stride(0),
        grad_gate_up.stride(0),
        0 if recomputed is None else recomputed.stride(0),
        INNER=inner,
        WEIGHTED=weight is not None,
        RECOMPUTE=recomputed is not None,
        BLOCK=triton.next_power_of_2(inner),
        num_warps=4,
    )
    return grad_weight


def _swiglu_backward_in_torch(
    gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor | None, grad: torch.Tensor, grad_gate_up: torch.Tensor
) -> torch.Tensor | None:
    sigmoid = torch.sigmoid(gate.float())
    silu, total = gate.float() * sigmoid, grad.float()
    grad_weight = None if weight is None else (total * silu * up.float()).sum(dim=1).to(weight.dtype)
    total = total if weight is None else total * weight.float()[:, None]
    both = [total * up.float() * (sigmoid + silu * (1 - sigmoid)), total * silu]
    grad_gate_up[:, : 2 * gate.shape[1]] = torch.cat(both, dim=1)
    return grad_weight


def sum_slots(rows: torch.Tensor, row_of_slot: torch.Tensor) -> torch.Tensor:
    """[tokens, width]: for each token the sum of those of `rows` [rows, width] that `row_of_slot` [tokens, k] names."""
    if not rows.is_cuda:
        return rows.float()[row_of_slot].sum(dim=1).to(rows.dtype)
    tokens, k = row_of_slot.shape
    width = rows.shape[1]
    out = rows.new_empty(tokens, width)
    kernels.sum_slots[(tokens,)](
        rows,
        row_of_slot,
        out,
        rows.stride(0),
        W=width,
        SLOTS=k,
        BLOCK=triton.next_power_of_2(width),
        num_warps=8,
    )
    return out


def apply_rotary(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The rotary embedding of heads [tokens, heads, size], by the angles of `cos` and `sin` [tokens, size / 2].

    Su et al. 2021, "RoFormer", equation 34: neighbouring values are a pair that is rotated, as ERNIE orders them.
    Differentiable in `heads`.
    """
    out: torch.Tensor = _Rotary.apply(heads, cos, sin)  # type: ignore[no-untyped-call]
    return out


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Any, cos: Any, sin: Any) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos, sin)
        return rotate(heads, cos, sin, heads.new_empty(heads.shape))

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return rotate(grad, cos, sin, grad.new_empty(grad.shape), back=True), None, None


def rotate(
    heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, back: bool = False
) -> torch.Tensor:
    """Write what `apply_rotary` gives, or with `back` what is rotated so, into `out`, a token's heads side by side;
    it may be `heads`."""
    if not heads.is_cuda:
        x, y = heads.float().view(*heads.shape[:-1], -1, 2).unbind(-1)
        c, s = cos[:, None], -sin[:, None] if back else sin[:, None]
        return out.copy_(torch.stack((x * c - y * s, y * c + x * s), dim=-1).flatten(-2))
    tokens, number, size = heads.shape
    if heads.stride()[1:] != (size, 1):
        heads = heads.contiguous()
    strides = heads.stride(0), out.stride(0)
    kernels.rotary[(tokens,)](heads, cos, sin, out, *strides, HEADS=number, HALF=size // 2, BACK=back, num_warps=1)
    return out


def loss_and_gradient(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """The sum of the negative log-likelihood in nats over the rows whose label is not `NOT_COUNTED`, a scalar in fp32.

    `weights` [rows], fp32 and of either sign: each row's loss is multiplied by its own. `logits` [rows, vocabulary]
    become their own gradient: softmax less one at the label, times the weight, or zero.
    """
    return token_losses(logits, labels, weights).sum()


def token_losses(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """As `loss_and_gradient`, which overwrites `logits` too: each row's part [rows] of the sum."""
    if not logits.is_cuda:
        counted = labels != NOT_COUNTED
        wanted = labels.clamp(min=0)[:, None]
        logs = F.log_softmax(logits.float(), dim=1)
        factor: torch.Tensor = counted if weights is None else torch.where(counted, weights, 0.0)
        each = -(logs.gather(1, wanted)[:, 0] * factor)
        gradient = logs.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=logs.dtype))
        logits.copy_(gradient * factor[:, None])
        return each
    losses = torch.empty(len(labels), device=logits.device)
    kernels.loss_and_gradient[(len(labels),)](
        logits,
        labels,
        losses if weights is None else weights,
        losses,
        V=logits.shape[1],
        IGNORED=NOT_COUNTED,
        WEIGHTED=weights is not None,
        BLOCK=8192,
        num_warps=16,
    )
    return losses
