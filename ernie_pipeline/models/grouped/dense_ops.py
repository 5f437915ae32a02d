"""What stands beside a dense layer's rows: what an adapter's A makes of them, and B of gradients.

One pass over the rows on CUDA, in which an RMS norm takes part where one comes before the layer.
"""

from typing import NamedTuple

import torch

try:
    import triton

    from ernie_pipeline.models.grouped import dense_kernels
except ImportError:  # no CUDA build of torch
    triton = None

TILE = 8192
"""Values of `lora` that a program reads at a time: 128 deep for a width of 64."""
FEW_ROWS = 4096
"""Up to so many rows programs have 16 of them, so that there are enough for the multiprocessors, and then 32: with 64
Triton would take the matrix units that read the left factor from registers, see benchmarks/training/README.md."""


class Norm(NamedTuple):
    """An RMS norm (Zhang and Sennrich 2019, equation 4): x / sqrt(mean(x^2) + epsilon) * weight."""

    weight: torch.Tensor
    epsilon: float


def with_low_rank(
    source: torch.Tensor, lora: torch.Tensor, norm: Norm | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`source` [rows, depth], normalized by `norm` if there is one, and beside it what `lora` [width, depth] makes of
    it: [rows, depth + width]; and the latter alone [rows, width]."""
    depth = source.shape[1]
    rows = source.new_empty(len(source), depth + len(lora))
    if source.is_cuda:
        return rows, _launch(source, lora, rows, norm)
    rows[:, :depth] = source if norm is None else _normalized(source, norm)[0]
    return rows, add_low_rank(rows, lora)


def add_low_rank(rows: torch.Tensor, lora: torch.Tensor) -> torch.Tensor:
    """Write what `lora` [width, depth] makes of rows[:, :depth] into the columns behind; that alone [rows, width]."""
    if rows.is_cuda:
        return _launch(rows, lora, rows, None)
    depth = lora.shape[1]
    low_rank = rows[:, :depth] @ lora.t()
    rows[:, depth:] = low_rank
    return low_rank


def _launch(source: torch.Tensor, lora: torch.Tensor, rows: torch.Tensor, norm: Norm | None) -> torch.Tensor:
    (width, depth), number = lora.shape, len(source)
    source = source if source.stride(1) == 1 else source.contiguous()
    out = rows.new_empty(number, width)
    of_a_program = 16 if number <= FEW_ROWS else 32
    columns = max(16, triton.next_power_of_2(width))
    dense_kernels.low_rank_of_all[(triton.cdiv(number, of_a_program),)](
        source,
        source if norm is None else norm.weight,
        lora,
        rows,
        out,
        number,
        width,
        0.0 if norm is None else norm.epsilon,
        source.stride(0),
        *lora.stride(),
        rows.stride(0),
        DEPTH=depth,
        COPY=source is not rows,
        NORM=norm is not None,
        ROWS=of_a_program,
        STEP=min(128, max(16, TILE // columns)),
        WIDTH=columns,
        SQUARES=512,  # nothing overlaps those loads but one another
        num_warps=4,
        num_stages=3,
    )
    return out


def rms_norm_backward(
    x: torch.Tensor, norm: Norm, grad: torch.Tensor, other: torch.Tensor | None, again: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gradient of x [rows, depth] from `grad`, that of x normalized, and the `other` gradients that x has, in one
    sum; and with `again` x normalized once more."""
    if not x.is_cuda:
        normalized, value, factor = _normalized(x, norm)
        g = grad.float() * norm.weight.float()
        total = (g - value * (g * value).mean(dim=1, keepdim=True)) * factor
        total = total if other is None else total + other.float()
        return total.to(x.dtype), normalized.to(x.dtype) if again else None
    x, grad = x.contiguous(), grad.contiguous()
    grad_x = torch.empty_like(x)
    out = torch.empty_like(x) if again else None
    dense_kernels.rms_norm_backward[(len(x),)](
        x,
        norm.weight,
        grad,
        grad if other is None else other.contiguous(),
        grad_x if out is None else out,
        grad_x,
        norm.epsilon,
        DEPTH=x.shape[1],
        ADDED=other is not None,
        NORMALIZED=again,
        BLOCK=triton.next_power_of_2(x.shape[1]),
        num_warps=8,
    )
    return grad_x, out


def _normalized(x: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In fp32: what the norm gives, that without its weight, and what x was multiplied by [rows, 1]."""
    factor = (x.float().square().mean(dim=1, keepdim=True) + norm.epsilon).rsqrt()
    value = x.float() * factor
    return value * norm.weight.float(), value, factor
