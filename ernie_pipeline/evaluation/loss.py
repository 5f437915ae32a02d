"""Validation loss: what the model would have paid for the right completions."""

from collections.abc import Sequence
from typing import Any

import torch

MAX_TOKENS = 4096
"""Tokens of a batch, padding included: they keep a GPU busy; their fp32 logits over 103,424 tokens are 1.6 GiB."""

Row = tuple[list[int], list[int]]
"""The token ids of a prompt and of its completion."""


def completion_loss(
    model: Any, prompts: Sequence[list[int]], completions: Sequence[list[int]], max_tokens: int = MAX_TOKENS
) -> float:
    """Mean negative log-likelihood, in nats a token, over all completion tokens given their prompts.

    `prompts` and `completions` are token ids, row by row. Every completion token counts once, whatever its batch.
    """
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for rows in _batches(list(zip(prompts, completions, strict=True)), max_tokens):
        width = max(_length(row) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask, counted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(rows):
            length = len(prompt) + len(completion)
            ids[row, :length] = torch.tensor(prompt + completion)
            mask[row, :length] = 1
            counted[row, len(prompt) : length] = True
        with torch.no_grad():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        predicted = logits[:, :-1][counted[:, 1:].to(device)].float()  # position t predicts token t + 1
        wanted = ids[:, 1:][counted[:, 1:]].to(device)
        total += torch.nn.functional.cross_entropy(predicted, wanted, reduction="sum").item()
        tokens += len(wanted)
    return total / tokens


def _batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Rows of like length together, shortest first; a batch's rows times its width are at most `max_tokens`."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=_length):
        if batches and _length(row) * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _length(row: Row) -> int:
    return len(row[0]) + len(row[1])
