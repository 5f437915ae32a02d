"""The loss on the held-out rows: the mean over all their counted tokens, however they are batched or shared."""

from collections.abc import Callable, Sequence

import torch

from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.training.memory import no_room
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.rows import NOT_COUNTED
from ernie_pipeline.training.schedule.micro_batches import Document

MAX_TOKENS = 4096
"""Tokens of a batch, padding included: they keep a GPU busy; their fp32 logits over 103,424 tokens are 1.6 GiB."""
MAX_TOKENS_END_TO_END = 8192
"""The same where the logits are never there at once."""

LossSum = Callable[[Sequence[Document]], torch.Tensor]
"""The sum of the negative log-likelihood, in nats, over the counted tokens of a padded batch."""


def validation_loss(
    loss_sum: LossSum,
    documents: Sequence[Document],
    ranks: Ranks,
    *,
    max_tokens: int = MAX_TOKENS,
    interrupted: Callable[[], bool] = lambda: False,
    give_back: Callable[[], bool] = lambda: False,
    limit_gib: float | None = None,
) -> float | None:
    """The mean negative log-likelihood in nats a token. None when `interrupted` on some rank, between two batches.

    For a batch that does not fit into memory `give_back` may let go of some; when it has none to give, the batch is
    halved. Raises `PipelineError` when one row alone does not fit, with `limit_gib` as what is allowed.
    """
    total, stopped = 0.0, False
    batches = batches_by_length(documents, max_tokens)[ranks.rank :: ranks.size]
    while batches and not (stopped := interrupted()):
        batch = batches.pop(0)
        loss = _sum(loss_sum, batch)
        if loss is not None:
            total += loss
            continue
        if give_back():
            batches.insert(0, batch)
        elif len(batch) == 1:
            raise no_room("a held-out row", limit_gib)
        else:
            batches[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        free_memory()
    total, stops = ranks.sum(total, stopped)
    counted = sum(int((document.labels[1:] != NOT_COUNTED).sum()) for document in documents)
    return None if stops else total / counted


def batches_by_length(documents: Sequence[Document], max_tokens: int) -> list[list[Document]]:
    """Documents of like length together, longest first; a batch's rows times its width are at most `max_tokens`."""
    batches: list[list[Document]] = []
    for document in sorted(documents, key=lambda document: -len(document.ids)):
        if batches and len(batches[-1][0].ids) * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(document)
        else:
            batches.append([document])
    return batches


def _sum(loss_sum: LossSum, batch: Sequence[Document]) -> float | None:
    """None: out of memory."""
    try:
        with torch.no_grad():
            return loss_sum(batch).item()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None
