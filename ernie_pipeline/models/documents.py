"""What a model learns from and is measured on: token ids, and which of them a loss counts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

NOT_COUNTED = -100
"""torch's and transformers' label of a token that a loss passes over."""


class Document(NamedTuple):
    """One sample: `ids` and `labels` [tokens], int64 on the CPU. A label is the token's own id where a loss counts it,
    else `NOT_COUNTED`. The first token's label is never counted: nothing comes before it."""

    ids: torch.Tensor
    labels: torch.Tensor

    @property
    def counted(self) -> int:
        """How many tokens a loss counts."""
        return int((self.labels[1:] != NOT_COUNTED).sum())


def document(ids: Sequence[int], first_counted: int = 1) -> Document:
    """The document of `ids` whose loss counts the tokens from `first_counted` on."""
    tokens = torch.tensor(ids, dtype=torch.long)
    labels = tokens.clone()
    labels[: max(1, first_counted)] = NOT_COUNTED
    return Document(tokens, labels)
