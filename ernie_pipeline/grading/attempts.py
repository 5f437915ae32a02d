"""What several attempts at each problem say: how often one of some is right."""

from math import comb


def pass_at(attempts: int, right: int, k: int) -> float:
    """The chance that of `k` attempts, drawn from the `attempts` of which `right` are right, one is: unbiased.

    Source: Chen et al., "Evaluating large language models trained on code" (2021), equation 1.
    """
    return 1.0 - comb(attempts - right, k) / comb(attempts, k)


def powers_up_to(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which is the last."""
    return sorted({2**n for n in range(most.bit_length()) if 2**n < most} | {most})
