"""What each of several processes computes of a step."""

from collections.abc import Sequence


def share_of(step: Sequence[int], lengths: Sequence[int], rank: int, ranks: int) -> list[int]:
    """What of a step's samples `rank` takes, longest first: as many as the others, or one more, and about their tokens.

    Of the longest that are left each takes one, the longest who has the fewest tokens: all wait for the slowest.
    """
    ordered = sorted(step, key=lambda sample: (-lengths[sample], sample))
    shares: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for start in range(0, len(ordered), ranks):
        fewest_first = sorted(range(ranks), key=lambda number: tokens[number])
        for number, sample in zip(fewest_first, ordered[start : start + ranks], strict=False):
            shares[number].append(sample)
            tokens[number] += lengths[sample]
    return shares[rank]
