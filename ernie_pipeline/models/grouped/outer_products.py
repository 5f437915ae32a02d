"""The gradients of the experts' adapters: for each expert the product of its narrow rows and its wide ones.

torch's grouped product computes tiles of 64 columns and more, where an adapter has 16, rounds what it gives to 16 bits,
and wants its rows gathered first. This one is a single reading of the wide rows, from where they lie.
"""

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


def outer_products(
    narrow: torch.Tensor,
    wide: torch.Tensor,
    ends: torch.Tensor,
    *,
    token: torch.Tensor | None = None,
    transpose: bool = False,
) -> torch.Tensor:
    """[experts, rank, n] in fp32: for each expert narrow' wide over its rows, or with `transpose` [experts, n, rank].

    `narrow` [rows, rank] and `wide` [rows, n], or [tokens, n] of which `token` [rows] names each row's; `ends`
    [experts] is the row after each expert's last, int32.
    """
    rank, n = narrow.shape[1], wide.shape[1]
    if not narrow.is_cuda:
        products = _in_torch(narrow, wide if token is None else wide[token], ends)
        return products.transpose(1, 2) if transpose else products
    out = torch.empty((len(ends), n, rank) if transpose else (len(ends), rank, n), device=wide.device)
    strides = (out.stride(0), 1, rank) if transpose else (out.stride(0), n, 1)
    ranks = kernels.tile_size(rank, MAX_RANKS)
    kernels.outer_products[(triton.cdiv(n, COLUMNS), len(ends), triton.cdiv(rank, ranks))](
        narrow,
        wide,
        ends if token is None else token,
        ends,
        out,
        narrow.stride(0),
        wide.stride(0),
        *strides,
        RANK=rank,
        N=n,
        INDEXED=token is not None,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        RANKS=ranks,
        num_warps=4,
        num_stages=4,
    )
    return out


def _in_torch(narrow: torch.Tensor, wide: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    groups = zip(*(part.float().tensor_split(ends[:-1].long()) for part in (narrow, wide)), strict=True)
    return torch.stack([few.t() @ many for few, many in groups])
