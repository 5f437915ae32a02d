"""vLLM on the same weights, prompts and lengths as ours, on the same card in the same call. For `generate.py`."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.documents import document
from ernie_pipeline.models.generation.vllm.engine import Size, loaded_vllm, sampling_params
from ernie_pipeline.models.generation.vllm.interpreter import resolve_generator
from ernie_pipeline.models.generation.vllm.process import Batch, VllmProcess

Tokens = list[list[int]]
Tell = Callable[..., None]
GREEDY, DRAWN = Sampling(1), Sampling(1, temperature=1.0)
COMPARED = 64
"""Answers whose log-probabilities are held against the loaded model's."""


class Asked:
    """The greedy answers of one batch, and what they took."""

    def __init__(
        self, vllm: VllmProcess, prompts: Tokens, budgets: Sequence[int], sampling: Sampling, seeds: Any, logprobs: bool
    ):
        self.tokens: Tokens = [[] for _ in prompts]
        self.logprobs: list[list[float]] = [[] for _ in prompts]
        params = sampling_params(sampling, [], logprobs=logprobs)
        start = time.time()
        vllm.answer(Batch(prompts, budgets, seeds or [None] * len(prompts), params), self._hear)
        self.seconds = time.time() - start
        self.number = sum(map(len, self.tokens))

    def _hear(self, index: int, tokens: list[int], logprobs: list[float]) -> None:
        self.tokens[index], self.logprobs[index] = tokens, logprobs

    def facts(self, **more: Any) -> dict[str, Any]:
        speed = round(self.number / self.seconds, 1)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return {"seconds": round(self.seconds, 2), "tokens_per_s": speed, **more, "device": device}


def measure(loaded: LoadedModel, prompts: Tokens, ours: Tokens, options: Any, unlike: Any, tell: Tell) -> None:
    """vLLM's greedy answers of `options.new_tokens` each, `options.repeat` times and once with log-probabilities; and,
    where `unlike` is (prompts, lengths), a full batch and answers of those lengths, sampled.

    `ours`: our greedy answers to the same prompts, or none.
    """
    generator, most = resolve_generator("vllm"), max([options.new_tokens, *(unlike[1] if unlike else ())])
    size = Size(options.rows, max(map(len, [*prompts, *(unlike[0] if unlike else ())])) + most)
    with loaded_vllm(loaded, generator, size, GREEDY, options.limit_gib, options.vllm_arguments) as vllm:
        tell("vllm loaded", generator=generator, **vllm.facts)
        budgets = [options.new_tokens] * len(prompts)
        for call in range(options.repeat + 1):  # the first one warms up
            asked = Asked(vllm, prompts, budgets, GREEDY, None, logprobs=False)
            tell("vllm", **asked.facts(call=call + 1, rows=len(prompts), new_tokens=options.new_tokens))
        told = Asked(vllm, prompts, budgets, GREEDY, None, logprobs=True)
        tell("vllm with log-probabilities", **told.facts(rows=len(prompts), new_tokens=options.new_tokens))
        if unlike:
            _unlike(vllm, *unlike, rows=options.slots, new_tokens=options.new_tokens, tell=tell)
    _agreement(loaded, prompts, ours, told, tell)


def _unlike(
    vllm: VllmProcess, prompts: Tokens, lengths: Sequence[int], *, rows: int, new_tokens: int, tell: Tell
) -> None:
    seeds = list(range(len(prompts)))
    full = prompts[:rows], [new_tokens] * min(rows, len(prompts)), DRAWN
    tell("vllm full batch, unseeded", **Asked(vllm, *full, None, logprobs=False).facts(rows=len(full[0])))
    seeded = Asked(vllm, *full, seeds[:rows], logprobs=False)
    tell("vllm full batch", **seeded.facts(rows=len(full[0])))
    asked = Asked(vllm, prompts, lengths, DRAWN, seeds, logprobs=False)
    share = (asked.number / asked.seconds) / (seeded.number / seeded.seconds)
    tell("vllm lognormal", **asked.facts(answers=len(prompts), tokens=asked.number, of_the_full_batch=share))


def _agreement(loaded: LoadedModel, prompts: Tokens, ours: Tokens, theirs: Asked, tell: Tell) -> None:
    """How far its greedy answers are ours, and its log-probabilities the loaded model's of the same tokens."""
    same = shared = 0
    for own, other in zip(ours, theirs.tokens, strict=False):
        until = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), len(own))
        same, shared = same + (own == other), shared + until
    documents = [document(p + a, len(p)) for p, a in zip(prompts, theirs.tokens, strict=True)][:COMPARED]
    gaps = torch.cat(
        [
            logprobs[-len(other) :].double() - torch.tensor(other, dtype=torch.float64)
            for logprobs, other in zip(loaded.token_logprobs(documents), theirs.logprobs, strict=False)
        ]
    )
    tell(
        "agreement",
        of="ours and vllm",
        rows=len(ours),
        same=same,
        equal_tokens_before_the_first_difference=round(shared / max(1, sum(map(len, ours))), 4),
        logprob_tokens=len(gaps),
        logprob_mean_gap=float(gaps.abs().mean()),
        logprob_largest_gap=float(gaps.abs().max()),
        mismatch_kl=float((gaps.exp() - 1 - gaps).mean()),  # k3 of Schulman, "Approximating KL divergence" (2020)
    )
