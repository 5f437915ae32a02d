"""The gradients of the experts' adapters: for each expert the product of its narrow rows and its wide ones.

torch's grouped product computes tiles of 64 columns and more, where an adapter has 16, rounds what it gives to 16 bits,
and wants its rows gathered first. This one is a single reading of the wide rows, from where they lie, and adds to what
is there: autograd would add what it gives in a second pass over memory.
"""

from collections.abc import Sequence

import torch

try:
    import triton

    from ernie_pipeline.models.grouped import kernels
except ImportError:  # no CUDA build of torch
    triton = None

ROWS, COLUMNS = 64, 128
"""Of the wide rows, what a program reads at a time: chosen on an H100."""
MAX_RANKS = 64
"""Of the narrow rows: where they are wider, the wide ones are read again for each so many columns."""


def add_outer_products(
    outs: Sequence[torch.Tensor],
    narrow: torch.Tensor,
    wide: torch.Tensor,
    ends: torch.Tensor,
    *,
    token: torch.Tensor | None = None,
    scale: float = 1.0,
) -> None:
    """Add to `outs`, one or two [experts, rank, n] in fp32, for each expert scale x narrow' wide over its rows.

    `narrow` [rows, width] has as many columns for each of them, in their order, of which the first are its `rank`;
    `wide` is [rows, n], or [tokens, n] of which `token` [rows] names each row's; `ends` [experts] is the row after each
    expert's last, int32.
    """
    aligned = narrow.shape[1] // len(outs)
    if not narrow.is_cuda:
        products = _in_torch(narrow, wide if token is None else wide[token], ends)
        for out, own in zip(outs, torch.split(products, aligned, dim=1), strict=True):
            out += own[:, : out.shape[1]] * scale
        return
    experts, rank, n = outs[0].shape
    ranks = kernels.tile_size(narrow.shape[1], MAX_RANKS)
    kernels.outer_products[(triton.cdiv(n, COLUMNS), experts, triton.cdiv(narrow.shape[1], ranks))](
        narrow,
        wide,
        ends if token is None else token,
        ends,
        outs[0],
        outs[-1],
        scale,
        narrow.stride(0),
        wide.stride(0),
        *outs[0].stride(),
        RANK=rank,
        N=n,
        OUTS=len(outs),
        ALIGNED=aligned,
        INDEXED=token is not None,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        RANKS=ranks,
        num_warps=4,
        num_stages=4,
        enable_fp_fusion=False,  # scaled, rounded and then added, as by operations one after the other
    )


def _in_torch(narrow: torch.Tensor, wide: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    groups = zip(*(part.float().tensor_split(ends[:-1].long()) for part in (narrow, wide)), strict=True)
    return torch.stack([few.t() @ many for few, many in groups])
