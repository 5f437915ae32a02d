"""What backends have in common whose module is a transformers model with PEFT's LoRA around it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch

from ernie_pipeline.models.audit import TargetCount, check_model
from ernie_pipeline.models.backend import Generation, OnAnswer, Progress, Sampling
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, end_tokens, load_tokenizer
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.generation.again import Again
from ernie_pipeline.models.generation.generate import generate_tokens
from ernie_pipeline.models.generation.merged import Generator, base_model, fast_generator
from ernie_pipeline.models.generation.on_cpu import cpu_generator
from ernie_pipeline.models.generation.sampler import Answers, Sampler
from ernie_pipeline.models.memory import does_not_fit, free_memory, is_out_of_memory
from ernie_pipeline.models.micro_batches.layout import batches_by_length
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.utils.timeline import part

MERGED_FROM = 32
"""Prompts from which it pays to merge the weights first, which takes seconds at the real size."""

Module = Any
"""A transformers model, or PEFT's around one: both without types."""

T = TypeVar("T")

LossOf = Callable[[Sequence[Document], Sequence[torch.Tensor] | None], torch.Tensor]
"""The summed loss of one batch of documents."""

LogprobsOf = Callable[[list[int]], Sequence[torch.Tensor]]
"""The log-probabilities [tokens] of each document of one batch, which is named by its positions."""

Release = Callable[[], bool]
"""Lets go of memory; whether there was any to let go of."""


class TransformersModel:
    """A model in memory, see `LoadedModel`; `module` is what transformers and PEFT made."""

    def __init__(self, spec: ModelSpec, device: str, module: Module):
        self.spec, self.device, self.module = spec, device, module
        with part("tokenizer"):
            self.tokenizer: Tokenizer = load_tokenizer(spec.base.checkpoint, spec.base.revision)
        self.limit_gib: float | None = None
        self.again: Again | None = None
        """What is kept from one `generate` to the next, where it is asked for."""

    @property
    def base(self) -> Module:
        """The model without PEFT's wrapper."""
        return base_model(self.module)

    def audit(self, *, training: bool) -> list[TargetCount]:
        """See `LoadedModel.audit`."""
        base, adapted = self.spec.base, self.module is not self.base
        with part("audit"):
            config = causal_lm_config(base.checkpoint, base.revision)
            return check_model(self.module, config, self.spec.lora, adapted=adapted, training=training)

    def without_adapter(self) -> AbstractContextManager[None]:
        """See `LoadedModel.without_adapter`."""
        return nullcontext() if self.module is self.base else self.module.disable_adapter()  # type: ignore[no-any-return]

    def trainable(self) -> dict[str, torch.Tensor]:
        """See `LoadedModel.trainable`."""
        return {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}

    def logits(self, input_ids: Sequence[int]) -> torch.Tensor:
        """See `LoadedModel.logits`."""
        ids = torch.tensor([input_ids], device=next(self.module.parameters()).device)
        with self.evaluating(), torch.no_grad():
            output: torch.Tensor = self.module(input_ids=ids, use_cache=False).logits
        return output[0].float().cpu()

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
        """See `LoadedModel.generate`."""
        self.before_generating()
        with self.evaluating():
            longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
            module, how = self._generator(len(prompts), rows, longest)
            answers = self.answers_of(module, prompts, sampling, rows, seeds, progress, on_answer)
        del module
        if self.again and self.again.decoder_kept is None:
            free_memory()
        return Generation(answers.tokens, answers.logprobs, how, answers.routing)

    def before_generating(self) -> None:
        """What a backend has to do first; nothing."""

    def _generator(self, prompts: int, rows: int, longest: int) -> Generator:
        """What is fastest for so many prompts, `rows` at a time, of which the longest has so many tokens at the end."""

        def make() -> Generator:
            if torch.device(self.device).type == "cpu":
                return cpu_generator(self.module, min(rows, prompts), longest)
            return fast_generator(self.module, prompts, longest)

        if self.again:
            return self.again.generator_of(self.module, make)
        return make() if prompts >= MERGED_FROM else Generator(self.module, "4-bit")

    @contextmanager
    def generating_again(self, rows: int) -> Iterator[None]:
        """See `LoadedModel.generating_again`."""
        self.again = Again(rows)
        try:
            yield
        finally:
            self.again = None
            free_memory()

    def release_generator(self) -> bool:
        """See `LoadedModel.release_generator`."""
        if self.again is None or not self.again.release():
            return False
        free_memory()
        return True

    def answers_of(
        self,
        module: Module,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        rows: int,
        seeds: Sequence[int] | None,
        progress: Progress | None,
        on_answer: OnAnswer | None,
    ) -> Answers:
        """The answers that `module`, this model in whatever form, gives; see `generate_tokens`."""
        decoder = None
        if self.again and (decoder := self.again.decoder_kept):
            rows = self.again.rows if torch.device(self.device).type == "cuda" else min(self.again.rows, rows)
        return generate_tokens(
            module,
            prompts,
            max_new_tokens=sampling.max_new_tokens,
            sampler=Sampler(sampling.temperature, sampling.top_p),
            seeds=seeds,
            pad_token_id=self.tokenizer.pad_token_id,
            end_tokens=self.end_tokens,
            rows=rows,
            progress=progress,
            on_answer=on_answer,
            decoder=decoder,
            with_routing=sampling.with_routing,
        )

    @property
    def end_tokens(self) -> list[int]:
        """The tokens that end an answer."""
        return end_tokens(self.tokenizer, self.base.generation_config)

    def autocast(self) -> AbstractContextManager[None]:
        """Products in 16 bits where the recipe computes in them: the adapter is held in fp32."""
        in_16_bits = self.spec.quantization.compute_dtype == "bfloat16"
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=in_16_bits)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The module in evaluation mode meanwhile."""
        was = self.module.training
        if was:
            self.module.eval()
        try:
            yield
        finally:
            if was:
                self.module.train()


def summed_loss(
    loss_of: LossOf,
    documents: Sequence[Document],
    weights: Sequence[torch.Tensor] | None,
    max_tokens: int,
    *,
    release: Release = lambda: False,
    limit_gib: float | None = None,
) -> float:
    """The sum of `loss_of` over batches, see `_over_batches`."""

    def of_batch(batch: list[int]) -> float:
        return loss_of([documents[i] for i in batch], None if weights is None else [weights[i] for i in batch]).item()

    total = 0.0
    for _, loss in _over_batches(of_batch, documents, max_tokens, release, limit_gib):
        total += loss
    return total


def batched_logprobs(
    logprobs_of: LogprobsOf,
    documents: Sequence[Document],
    max_tokens: int,
    *,
    release: Release = lambda: False,
    limit_gib: float | None = None,
) -> list[torch.Tensor]:
    """What `logprobs_of` says of each document, fp32 on the CPU, in batches, see `_over_batches`."""

    def of_batch(batch: list[int]) -> list[torch.Tensor]:
        found = list(logprobs_of(batch))
        whole = torch.cat(found).float().cpu()  # a CUDA device is waited for once
        return list(torch.split(whole, [len(each) for each in found]))

    found: dict[int, torch.Tensor] = {}
    for batch, logprobs in _over_batches(of_batch, documents, max_tokens, release, limit_gib):
        found.update(zip(batch, logprobs, strict=True))
    return [found[i] for i in range(len(documents))]


def _over_batches(
    of_batch: Callable[[list[int]], T],
    documents: Sequence[Document],
    max_tokens: int,
    release: Release,
    limit_gib: float | None,
) -> Iterator[tuple[list[int], T]]:
    """`of_batch` of batches of at most `max_tokens`, padding included: positions of documents of like length.

    For a batch that does not fit into memory `release` may let go of some; when it has none to give, the batch is
    halved. Raises `PipelineError` when one document alone does not fit.
    """
    batches = batches_by_length(documents, max_tokens)
    while batches:
        batch = batches.pop(0)
        found = _unless_out_of_memory(of_batch, batch)
        if found is not None:
            yield batch, found
            continue
        if release():
            batches.insert(0, batch)
        elif len(batch) == 1:
            raise does_not_fit("a held-out row", limit_gib)
        else:
            batches[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        free_memory()


def _unless_out_of_memory(of_batch: Callable[[list[int]], T], batch: list[int]) -> T | None:
    try:
        with torch.no_grad():
            return of_batch(batch)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None
