"""`generate` of the seam by vLLM: another generator of a loaded model's answers, of the same weights."""

import time
from collections.abc import Sequence

import torch

from ernie_pipeline.models.backend import Generates, Generation, LoadedModel, OnAnswer, Progress, Sampling
from ernie_pipeline.models.generation.vllm.engine import Size, has_logprobs, loaded_vllm, sampling_params
from ernie_pipeline.models.generation.vllm.interpreter import OWN, resolve_generator
from ernie_pipeline.models.generation.vllm.process import Batch
from ernie_pipeline.recipe.execution import Execution

PROGRESS_S = 1.0
"""Between two reports."""


def generator_of(loaded: LoadedModel, execution: Execution) -> Generates:
    """What answers as the model does, as `execution.generator` says. Raises `PipelineError` where it cannot be had."""
    generator = resolve_generator(execution.generator)
    return loaded if generator == OWN else VllmGenerator(loaded, generator, execution.memory_limit_gib)


class VllmGenerator:
    """vLLM on the weights of a loaded model, which stays where it is; started anew for each `generate`.

    `generator`: "vllm==VERSION". `logprobs`: whether to say them; they cost time at each step, and without they are not
    numbers. So they are where `sampling` has both a temperature but 1 and a `top_p`: vLLM takes them before or after
    both.
    """

    def __init__(self, loaded: LoadedModel, generator: str, limit_gib: float | None = None, *, logprobs: bool = False):
        self.loaded, self.generator, self.limit_gib, self.logprobs = loaded, generator, limit_gib, logprobs

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        rows: int,
        seeds: Sequence[int] | None = None,
        progress: Progress | None = None,
        on_answer: OnAnswer | None = None,
    ) -> Generation:
        """See `Generates.generate`. An answer follows from its seed by vLLM's own generator of random numbers."""
        if not prompts:
            return Generation([], [], how=self.generator)
        if seeds is None:
            seeds = torch.randint(2**62, (len(prompts),)).tolist()
        own: Sequence[int | None] = seeds if sampling.temperature else [None] * len(prompts)
        asks = self.logprobs and has_logprobs(sampling)
        hears = _Hears(len(prompts), asks, progress, on_answer)
        size = Size(min(rows, len(prompts)), max(map(len, prompts)) + sampling.max_new_tokens)
        start = time.monotonic()
        with loaded_vllm(self.loaded, self.generator, size, sampling, self.limit_gib) as vllm:
            ready = time.monotonic() - start
            budgets = [sampling.max_new_tokens] * len(prompts)
            params = sampling_params(sampling, self.loaded.end_tokens, logprobs=asks)
            vllm.answer(Batch(prompts, budgets, own, params), hears.hear)
        return Generation(hears.tokens, hears.logprobs, f"{self.generator}, ready after {ready:.0f} s")


class _Hears:
    """Answers as they come, and who is told."""

    def __init__(self, number: int, logprobs: bool, progress: Progress | None, on_answer: OnAnswer | None):
        self.tokens: list[list[int]] = [[] for _ in range(number)]
        self.logprobs: list[list[float]] = [[] for _ in range(number)]
        self._says_logprobs, self._progress, self._on_answer = logprobs, progress, on_answer
        self._done, self._told = 0, 0.0

    def hear(self, index: int, tokens: list[int], logprobs: list[float]) -> None:
        self.tokens[index] = tokens
        self.logprobs[index] = logprobs if self._says_logprobs else [float("nan")] * len(tokens)
        self._done += 1
        if self._on_answer:
            self._on_answer(index, tokens)
        now, total = time.monotonic(), len(self.tokens)
        if self._progress and (now - self._told >= PROGRESS_S or self._done == total):
            self._told = now
            self._progress(self._done, total)
