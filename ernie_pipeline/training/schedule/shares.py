"""What each of several processes computes of a step."""

from collections.abc import Sequence


def share_of(step: Sequence[int], lengths: Sequence[int], rank: int, ranks: int) -> list[int]:
    """What of a step's samples `rank` takes, longest first: about as many tokens as the others, or nothing at all."""
    return sorted(step, key=lambda sample: (-lengths[sample], sample))[rank::ranks]
