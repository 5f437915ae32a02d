"""Answers of a model to prompts: all at once where the model is merged and on CUDA, else in transformers' batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ernie_pipeline.models.checkpoint.tokenizer import token_ids, up_to_end
from ernie_pipeline.models.generation.memory_plan import free_bytes, row_bytes, rows_that_fit
from ernie_pipeline.models.generation.merged import decodable
from ernie_pipeline.models.memory import free_memory, is_out_of_memory

Progress = Callable[[int, int], None]
"""Hears (done, total)."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    progress: Progress | None = None,
) -> list[str]:
    """The text that follows each prompt, in the prompts' order; greedy at temperature 0. See `generate_tokens`."""
    answers = generate_tokens(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
        top_p=top_p,
        progress=progress,
    )
    return answer_texts(tokenizer, answers)


def answer_texts(tokenizer: Any, answers: Sequence[Sequence[int]]) -> list[str]:
    """The texts of generated tokens."""
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True) if answers else []
    return texts


def generate_tokens(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, in the prompts' order, up to the end token and with it.

    A merged model on CUDA answers greedily as many at once as memory holds (begun anew with half as many where that was
    too much); any other, or sampling, `batch_size`.
    """
    tell = progress or (lambda done, total: None)
    if temperature == 0 and next(model.parameters()).is_cuda and decodable(model):
        return _decoded(model, token_ids(tokenizer, prompts), max_new_tokens, tell)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    )
    return _in_batches(model, tokenizer, prompts, max_new_tokens, batch_size, sampling, tell)


def _decoded(model: Any, prompts: list[list[int]], max_new_tokens: int, progress: Progress) -> list[list[int]]:
    from ernie_pipeline.models.generation.decode import decode

    embeddings = model.get_input_embeddings().weight
    longest = max(map(len, prompts), default=0) + max_new_tokens
    bytes_a_row = row_bytes(model.config, longest, embeddings.dtype)
    rows = max(1, min(len(prompts), rows_that_fit(bytes_a_row, free_bytes(embeddings.device))))
    while True:
        try:
            return decode(
                model,
                prompts,
                max_new_tokens=max_new_tokens,
                eos=_end_tokens(model),
                rows=rows,
                record=True,
                progress=progress,
            )
        except RuntimeError as error:
            if rows == 1 or not _ran_out_of_memory(error):
                raise
        rows //= 2  # here the error is gone, and with it what its frames held
        free_memory()


def _ran_out_of_memory(error: RuntimeError) -> bool:
    """While a step is recorded it makes the end of the recording fail, in other words."""
    return any(each is not None and is_out_of_memory(each) for each in (error, error.__context__))


def _in_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    sampling: dict[str, Any],
    progress: Progress,
) -> list[list[int]]:
    """By the model's own `generate`. Prompts of similar length share a batch, so little is spent on padding."""
    device, ends = next(model.parameters()).device, _end_tokens(model)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
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
        for index, tokens in zip(chosen, output[:, input_ids.shape[1] :].tolist(), strict=True):
            answers[index] = up_to_end(tokens, ends)
        progress(min(start + batch_size, len(order)), len(order))
    return answers


def _end_tokens(model: Any) -> list[int]:
    """The tokens at which the model's own `generate` ends an answer."""
    ends = model.generation_config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
