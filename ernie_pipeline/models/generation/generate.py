"""Answers of a model to prompts: by `decode` where the model is merged, else in transformers' batches."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessorList

from ernie_pipeline.models.backend import OnAnswer, Progress
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, end_tokens, token_ids, up_to_end
from ernie_pipeline.models.generation.memory_plan import free_bytes, row_bytes, rows_that_fit
from ernie_pipeline.models.generation.merged import decodable
from ernie_pipeline.models.generation.sampler import GREEDY, Answers, Sampler, SeededDraws
from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.models.routing import routers

Prompts = Sequence[Sequence[int]]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    rows: int,
    sampler: Sampler = GREEDY,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """The text that follows each prompt, in the prompts' order, up to an end token.

    See `generate_tokens`.
    """
    answers = generate_tokens(
        model,
        token_ids(tokenizer, prompts) if prompts else [],
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        seeds=seeds,
        pad_token_id=tokenizer.pad_token_id,
        end_tokens=end_tokens(tokenizer, model.generation_config),
        rows=rows,
        progress=progress,
    )
    return answer_texts(tokenizer, answers.tokens)


def generate_tokens(
    model: Any,
    prompts: Prompts,
    *,
    max_new_tokens: int,
    sampler: Sampler = GREEDY,
    seeds: Sequence[int] | None = None,
    pad_token_id: int,
    end_tokens: Sequence[int],
    rows: int,
    progress: Progress | None = None,
    on_answer: OnAnswer | None = None,
    decoder: Any = None,
    with_routing: bool = False,
) -> Answers:
    """The tokens that follow each prompt (token ids), in the prompts' order: up to one of `end_tokens`, included.

    `seeds` [prompts]: what a sampled answer follows from; None: drawn from torch's generator. A merged model on CUDA
    answers as many at once as memory holds; any other `rows`. `decoder`: a `decode.Decoder` of this merged model, to go
    on with what earlier calls made; then it is `rows` on CUDA too. `with_routing`: a merged one tells which experts it
    chose.
    """
    tell = progress or (lambda done, total: None)
    if seeds is None:
        seeds = torch.randint(2**62, (len(prompts),)).tolist() if sampler.temperature else [0] * len(prompts)
    ask = Ask(max_new_tokens, sampler, seeds, pad_token_id, end_tokens, on_answer or (lambda index, tokens: None))
    if decodable(model):
        ask = ask._replace(with_routing=with_routing and bool(routers(model)))
        if decoder is None:
            rows = _rows_at_once(model, prompts, rows, max_new_tokens)
        return _decode_all(model, prompts, rows, ask, tell, decoder)
    return _generate_in_batches(model, prompts, rows, ask, tell)


class Ask(NamedTuple):
    """What is wanted of every answer, see `generate_tokens`."""

    max_new_tokens: int
    sampler: Sampler
    seeds: Sequence[int]
    pad_token_id: int
    end_tokens: Sequence[int]
    on_answer: OnAnswer
    with_routing: bool = False


def _rows_at_once(model: Any, prompts: Prompts, rows: int, max_new_tokens: int) -> int:
    """On CUDA as many as fit into memory, elsewhere `rows`; no more than there are prompts."""
    embeddings = model.get_input_embeddings().weight
    if embeddings.is_cuda:
        bytes_a_row = row_bytes(model.config, max(map(len, prompts), default=0) + max_new_tokens, embeddings.dtype)
        rows = rows_that_fit(bytes_a_row, free_bytes(embeddings.device))
    return max(1, min(len(prompts), rows))


def _decode_all(model: Any, prompts: Prompts, rows: int, ask: Ask, progress: Progress, decoder: Any) -> Answers:
    """By `decode`. Where memory runs out, what is not answered yet begins anew with fewer at once."""
    from ernie_pipeline.models.generation.decode import decode
    from ernie_pipeline.models.generation.schedule import settings_for

    cuda = next(model.parameters()).is_cuda
    settings = settings_for(cuda)
    answers, missing = Answers([[] for _ in prompts], [[] for _ in prompts]), dict.fromkeys(range(len(prompts)))
    routing, chosen = dict[int, torch.Tensor](), dict[int, torch.Tensor]()
    while True:
        asked = list(missing)

        def hear(number: int, tokens: list[int], logprobs: list[float], asked: list[int] = asked) -> None:
            index = asked[number]
            if number in chosen:
                routing[index] = chosen.pop(number)
            answers.tokens[index], answers.logprobs[index] = tokens, logprobs
            del missing[index]
            ask.on_answer(index, tokens)

        before = len(prompts) - len(asked)
        try:
            decode(
                model,
                [prompts[i] for i in asked],
                max_new_tokens=ask.max_new_tokens,
                end_tokens=ask.end_tokens,
                rows=rows,
                capture=cuda,
                settings=settings,
                sampler=ask.sampler,
                seeds=[ask.seeds[i] for i in asked],
                progress=partial(_tell_of_more, progress, before),
                on_answer=hear,
                decoder=decoder,
                chosen=chosen if ask.with_routing else None,
            )
            return answers._replace(routing=[routing[i] for i in range(len(prompts))] if ask.with_routing else None)
        except (RuntimeError, MemoryError) as error:
            if (rows == 1 and settings.prefill_tokens == 1) or not is_out_of_memory(error):
                raise
        rows = max(1, min(rows, len(missing)) * 3 // 4)  # here the error is gone, and with it what its frames held
        settings = settings._replace(prefill_tokens=max(1, settings.prefill_tokens // 2))
        if decoder is not None:
            decoder.clear()
        free_memory()


def _tell_of_more(progress: Progress, before: int, done: int, total: int) -> None:
    progress(before + done, before + total)


def _generate_in_batches(model: Any, prompts: Prompts, rows: int, ask: Ask, progress: Progress) -> Answers:
    """By the model's own `generate`. Prompts of similar length share a batch, so little is spent on padding."""
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = Answers([[] for _ in prompts], [[] for _ in prompts])
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        input_ids, mask = _padded_left([prompts[i] for i in batch], ask.pad_token_id, device)
        width = input_ids.shape[1]
        draws = SeededDraws(ask.sampler, torch.tensor([ask.seeds[i] for i in batch], device=device), width)
        with torch.no_grad():
            output = model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                use_cache=True,
                max_new_tokens=ask.max_new_tokens,
                pad_token_id=ask.pad_token_id,
                eos_token_id=list(ask.end_tokens) or None,
                do_sample=False,  # the drawn token is all that `draws` leaves
                num_beams=1,
                logits_processor=LogitsProcessorList([draws]),
            )
        logprobs = torch.stack(draws.logprobs, dim=1).tolist()
        for index, tokens, own in zip(batch, output[:, width:].tolist(), logprobs, strict=True):
            answer = up_to_end(tokens, ask.end_tokens)
            answers.tokens[index], answers.logprobs[index] = answer, own[: len(answer)]
            ask.on_answer(index, answer)
        progress(min(start + rows, len(order)), len(order))
    return answers


def _padded_left(prompts: Prompts, pad_token_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompts' ids and their attention mask [rows, width], padded on the left so that each can be continued."""
    width = max(map(len, prompts))
    ids = [[pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
