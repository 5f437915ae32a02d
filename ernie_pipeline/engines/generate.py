"""Answers of a model to prompts, in batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The text that follows each prompt, in the prompts' order; greedy at temperature 0.

    Prompts of similar length share a batch, so little is spent on padding. `progress` hears (done, total) after each.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    )
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        input_ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        with torch.no_grad():
            output = model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
                **sampling,
            )
        texts = tokenizer.batch_decode(output[:, input_ids.shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text
        if progress:
            progress(min(start + batch_size, len(order)), len(order))
    return answers
