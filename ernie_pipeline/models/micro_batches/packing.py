"""Several short samples in one row, so that little of a batch is padding."""

import bisect
import math
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions of `lengths` in as few rows as best-fit-decreasing finds for `capacity`, and these as narrow as it can.

    Rows of like width stand in a batch with little padding. No length may be above `capacity`.
    """
    fewest = best_fit_decreasing(lengths, capacity)
    if len(fewest) < 2:
        return fewest
    too_narrow, width = max(max(lengths), math.ceil(sum(lengths) / len(fewest))) - 1, capacity
    while width - too_narrow > 1:
        middle = (too_narrow + width) // 2
        rows = best_fit_decreasing(lengths, middle)
        if len(rows) == len(fewest):
            fewest, width = rows, middle
        else:
            too_narrow = middle
    return fewest


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions of `lengths`, grouped into packs of at most `capacity` together; none is cut.

    The longest first, each into the fullest pack that still holds it. It needs at most 11/9 of the fewest packs
    possible, and one (Johnson et al. 1974, SIAM J. Comput. 3(4)). No length may be above `capacity`.
    """
    packs: list[list[int]] = []
    gaps: list[tuple[int, int]] = []  # (tokens free, number of the pack), sorted
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[position]
        fullest = bisect.bisect_left(gaps, (length, -1))
        if fullest == len(gaps):
            free, number = capacity, len(packs)
            packs.append([])
        else:
            free, number = gaps.pop(fullest)
        packs[number].append(position)
        bisect.insort(gaps, (free - length, number))
    return packs
