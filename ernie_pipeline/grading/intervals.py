"""How sure a share of right answers is."""

from math import sqrt
from statistics import NormalDist


def wilson(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a `share` in [0, 1] over `count` > 0 independent observations, within [0, 1].

    Unlike the normal approximation it holds for few observations and for shares near 0 and 1. Where an observation is
    itself a share, such as a problem's pass rate, it varies less than 0 or 1 would, so the interval is at most too
    wide. Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    reach = z / scale * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low = 0.0 if share == 0 else max(0.0, centre - reach)
    return low, 1.0 if share == 1 else min(1.0, centre + reach)
