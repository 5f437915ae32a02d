"""How much of a step is computed at a time, and less of it when memory runs out."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ernie_pipeline.training.schedule.micro_batches import Layout, lay_out
from ernie_pipeline.training.schedule.order import samples_of_a_step


class Pieces:
    """The micro-batches that a rank's share of a step is computed in.

    `row_tokens`: see `lay_out`, also `sys.maxsize`, for documents laid end to end, whose tokens may be limited too.
    """

    def __init__(self, settings: dict[str, Any], ranks: int, row_tokens: int | None):
        self.row_tokens = row_tokens
        self.samples = min(settings["batch_size"], -(-samples_of_a_step(settings) // ranks))
        """At most, of a micro-batch."""
        self.tokens: int | None = None
        """At most, of one with several samples; None: any number."""

    def lay_out(self, lengths: Sequence[int]) -> Layout:
        """A share's samples of `lengths`, longest first."""
        return lay_out(lengths, self.samples, self.row_tokens, self.tokens)

    def largest(self, shares: Iterable[Sequence[int]], most: int = sys.maxsize) -> int:
        """The tokens of the largest micro-batch with no more than `most`, of shares with samples of these lengths; 1
        where there is none."""
        largest = 1
        for lengths in shares:
            for rows in self.lay_out(lengths):
                tokens = sum(lengths[i] for row in rows for i in row)
                largest = max(largest, tokens if tokens <= most else 0)
        return largest

    def less(self, shares: Sequence[Sequence[int]], *, slightly: bool) -> str:
        """Make them smaller: half the samples; or `slightly`, where documents lie end to end, a sixteenth fewer tokens
        than the largest has. What they are now, or "" when they are single samples already."""
        if slightly and self.row_tokens == sys.maxsize:
            largest, longest = self.largest(shares), max((length for share in shares for length in share), default=0)
            if largest <= longest:
                return ""
            self.tokens = max(longest, largest * 15 // 16)
            return f"at most {self.tokens} tokens at a time"
        if self.samples == 1:
            return ""
        self.samples //= 2
        return f"{self.samples} samples at a time" if self.samples > 1 else "one sample at a time"
