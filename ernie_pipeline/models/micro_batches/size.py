"""How much of a step is computed at a time, and less of it when memory runs out."""

import sys
from collections.abc import Iterable, Iterator, Sequence

from ernie_pipeline.models.micro_batches.layout import Layout, lay_out
from ernie_pipeline.recipe.execution import Execution

State = dict[str, int | bool | None]
"""How a training is computed at present, as a checkpoint keeps it: values of JSON's types."""

ONE_ROW = sys.maxsize
"""As `pack_tokens`: all documents of a micro-batch in one row, however long, whose tokens may be limited too."""


class MicroBatchSize:
    """The micro-batches that a step is computed in: at most `documents`, in rows of their own (`pack_tokens` None), in
    packed ones, or in `ONE_ROW`."""

    def __init__(self, documents: int, pack_tokens: int | None):
        self.pack_tokens = pack_tokens
        self.documents = documents
        """At most, of a micro-batch."""
        self.tokens: int | None = None
        """At most, of one with several documents; None: any number."""

    def lay_out(self, lengths: Sequence[int]) -> Layout:
        """Documents of `lengths`, longest first."""
        return lay_out(lengths, self.documents, self.pack_tokens, self.tokens)

    def tokens_of(self, steps: Iterable[Sequence[int]]) -> Iterator[int]:
        """Each micro-batch's tokens, of steps with documents of these lengths (longest first)."""
        for lengths in steps:
            for rows in self.lay_out(lengths):
                yield sum(lengths[i] for row in rows for i in row)

    def largest(self, steps: Iterable[Sequence[int]], most: int = sys.maxsize) -> int:
        """The tokens of the largest micro-batch with no more than `most`, see `tokens_of`; 1 where there is none."""
        return max((tokens for tokens in self.tokens_of(steps) if tokens <= most), default=1)

    def shrink(self, steps: Sequence[Sequence[int]], *, slightly: bool) -> str:
        """Make them smaller: half the documents; or `slightly`, in one row, a sixteenth fewer tokens than the largest
        has. What they are now, or "" when they are single documents already."""
        if slightly and self.pack_tokens == ONE_ROW:
            largest, longest = self.largest(steps), max((length for step in steps for length in step), default=0)
            if largest <= longest:
                return ""
            self.tokens = max(longest, largest * 15 // 16)
            return f"at most {self.tokens} tokens at a time"
        if self.documents == 1:
            return ""
        self.documents //= 2
        return f"{self.documents} samples at a time" if self.documents > 1 else "one sample at a time"

    def state(self, execution: Execution, *, checkpointing: bool) -> State:
        """What it came to under `execution`, for `restore`; `checkpointing`: whether activations are computed twice."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "gradient_checkpointing": checkpointing,
            **_asked_for(execution),
        }

    def restore(self, state: State, execution: Execution) -> bool:
        """Go on from a `state`; whether that was done: what another execution had come to says nothing of this one."""
        if any(state.get(name) != value for name, value in _asked_for(execution).items()):
            return False
        self.documents, self.tokens = int(state["documents"] or 1), state["tokens"]
        return True


def _asked_for(execution: Execution) -> State:
    """What of an execution decides how steps are laid out."""
    return {
        "asked_micro_batch": execution.micro_batch,
        "asked_packing": execution.packing,
        "asked_pack_tokens": execution.pack_tokens,
        "asked_gradient_checkpointing": execution.gradient_checkpointing,
    }
