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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """`source` [rows, depth], normalized by `norm` if there is one, and beside it what `lora` [width, depth] makes of
    it: [rows, depth + width]; the latter alone [rows, width]; and 1 / sqrt(...) of the norm [rows], in fp32."""
    depth = source.shape[1]
    rows = source.new_empty(len(source), depth + len(lora))
    if source.is_cuda:
        inverse = None if norm is None else torch.empty(len(source), device=source.device)
        return rows, _launch(source, lora, rows, norm, inverse), inverse
    inverse = None
    if norm is not None:
        inverse = (source.float().square().mean(dim=1) + norm.epsilon).rsqrt()
        source = source.float() * inverse[:, None] * norm.weight.float()
    rows[:, :depth] = source
    return rows, add_low_rank(rows, lora), inverse


def add_low_rank(rows: torch.Tensor, lora: torch.Tensor) -> torch.Tensor:
    """Write what `lora` [width, depth] makes of rows[:, :depth] into the columns behind; that alone [rows, width]."""
    if rows.is_cuda:
        return _launch(rows, lora, rows, None, None)
    depth = lora.shape[1]
    low_rank = rows[:, :depth] @ lora.t()
    rows[:, depth:] = low_rank
    return low_rank


def _launch(
    source: torch.Tensor, lora: torch.Tensor, rows: torch.Tensor, norm: Norm | None, inverse: torch.Tensor | None
) -> torch.Tensor:
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
        out if inverse is None else inverse,
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
    x: torch.Tensor, norm: Norm, inverse: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, depth] normalized once more, and the gradient of x, from `grad`, that of the former; `inverse` is what
    `with_low_rank` gave."""
    if not x.is_cuda:
        factor, weight = inverse[:, None], norm.weight.float()
        value, g = x.float() * factor, grad.float() * weight
        grad_x = (g - value * (g * value).mean(dim=1, keepdim=True)) * factor
        return (value * weight).to(x.dtype), grad_x.to(x.dtype)
    rows, depth = x.shape
    x, grad = x.contiguous(), grad.contiguous()
    normalized, grad_x = x.new_empty(rows, depth), x.new_empty(rows, depth)
    dense_kernels.rms_norm_backward[(rows,)](
        x,
        norm.weight,
        inverse,
        grad,
        normalized,
        grad_x,
        DEPTH=depth,
        BLOCK=triton.next_power_of_2(depth),
        num_warps=8,
    )
    return normalized, grad_x
