"""Validation loss: what the model would have paid for the right completions."""

from collections.abc import Sequence
from typing import Any

import torch


def completion_loss(
    model: Any, prompts: Sequence[list[int]], completions: Sequence[list[int]], batch_size: int
) -> float:
    """Mean negative log-likelihood, in nats a token, over all completion tokens given their prompts.

    `prompts` and `completions` are token ids, row by row. Every completion token counts once, whatever its batch.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(completions[i]))
    total, tokens = 0.0, 0
    for start in range(0, len(order), batch_size):
        rows = [(prompts[i], completions[i]) for i in order[start : start + batch_size]]
        width = max(len(p) + len(c) for p, c in rows)
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
