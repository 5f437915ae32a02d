"""Which tokens `top_p` leaves: on CUDA without sorting the vocabulary, which took a quarter of a step.

There the least probability that is kept is found bit by bit: numbers that are not negative are ordered as their bits.
"""

import torch

try:
    import triton

    from ernie_pipeline.models.generation import decode_kernels as kernels
except ImportError:  # no CUDA build of torch
    triton = None

BITS = 30
"""Of a probability in fp32: those of 1 are 0x3f800000."""


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """`probabilities` [rows, vocabulary] in fp32, zero but for the fewest that together reach `top_p`, at least one.

    The highest are taken first, of equal ones those of lower ids (Holtzman et al. 2020, equation 2).
    """
    return (_by_bisection if probabilities.is_cuda and triton else by_sorting)(probabilities, top_p)


def by_sorting(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The same as it is defined."""
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    return torch.zeros_like(probabilities).scatter_(1, ids, ordered.masked_fill(before >= top_p, 0.0))


def _by_bisection(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    rows, vocabulary = probabilities.shape
    out = torch.empty_like(probabilities)
    kernels.nucleus[(rows,)](probabilities, out, top_p, vocabulary, BITS=BITS, BLOCK=4096, num_warps=8)
    return out
