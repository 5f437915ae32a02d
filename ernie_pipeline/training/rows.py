"""The split's rows as token ids, and what of them the loss counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, token_ids
from ernie_pipeline.models.documents import NOT_COUNTED, Document, document

if TYPE_CHECKING:
    from datasets import Dataset


class Row(NamedTuple):
    """A prompt and its completion; the loss counts the tokens from `first_counted` on, never the very first one."""

    ids: list[int]
    first_counted: int

    @property
    def document(self) -> Document:
        """As a model takes it."""
        return document(self.ids, self.first_counted)

    @property
    def labels(self) -> list[int]:
        """`ids` where the loss counts, else `NOT_COUNTED`."""
        return [NOT_COUNTED] * self.first_counted + self.ids[self.first_counted :]

    @property
    def counted(self) -> int:
        """How many tokens the loss counts."""
        return len(self.ids) - self.first_counted


def read_rows(file: Path, tokenizer: Tokenizer, *, completion_only_loss: bool) -> list[Row]:
    """The rows of a split's file in their order.

    Prompt and completion are tokenised apart and joined, as they are when the model answers: a token that would span
    the two cannot occur there.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["prompt_text", "completion_text"])
    prompts = token_ids(tokenizer, table["prompt_text"].to_pylist())
    completions = token_ids(tokenizer, table["completion_text"].to_pylist())
    return [
        Row(prompt + completion, max(1, len(prompt)) if completion_only_loss else 1)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def as_dataset(rows: Sequence[Row]) -> "Dataset":
    """A `datasets.Dataset` of `input_ids` and `labels`, which SFTTrainer takes as they are."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]})
