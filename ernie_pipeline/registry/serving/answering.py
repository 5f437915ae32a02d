"""A loaded model that answers conversations: they are checked and tokenized where they come in, answered in batches."""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, prompt_text, token_ids
from ernie_pipeline.registry.serving.batcher import Batcher, seeds_of
from ernie_pipeline.registry.serving.conversation import Message, Settings
from ernie_pipeline.registry.serving.refusal import Refusal

LONG = 32_000
"""The characters of a long conversation: a million of them took between one and two seconds to tokenize."""


class Prompt(NamedTuple):
    """A conversation that fits the model, as token ids, and how to answer it."""

    tokens: list[int]
    settings: Settings


class Answer(NamedTuple):
    """An answer's text, its tokens with the end token, the prompt's tokens, and whether it came to its end."""

    text: str
    tokens: int
    prompt_tokens: int
    ended: bool


class _Tokenizing:
    """A tokenizer, used by one caller at a time."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.turn = tokenizer, threading.Lock()

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The conversation, by the chat template."""
        with self.turn:
            try:
                text = prompt_text(self.tokenizer, [dict(message) for message in messages])
            except Exception as error:  # jinja2's errors, and whatever a template raises by itself
                raise Refusal(
                    f"the model's chat template refuses these messages: {' '.join(str(error).split())}"
                ) from None
            [tokens] = token_ids(self.tokenizer, [text])
        return tokens


class Answering:
    """The model with its queue. `instruction`: what stands before a question; `max_new_tokens`: where none is given."""

    def __init__(self, model: LoadedModel, *, instruction: str, max_new_tokens: int, max_batch: int):
        self.model, self.instruction, self.max_new_tokens = model, instruction, max_new_tokens
        self.batcher = Batcher(model, max_batch)
        base = model.spec.base
        config = causal_lm_config(base.checkpoint, base.revision).get_text_config()
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        tokenizer: Any = model.tokenizer
        self.longest_token = max(map(len, tokenizer.get_vocab()))
        # callers come in threads, and a tokenizer is for one at a time: short texts do not wait for long ones
        self._short, self._long = (_Tokenizing(one) for one in (tokenizer, copy.deepcopy(tokenizer)))

    def prompt(self, messages: Sequence[Message], settings: Settings) -> Prompt:
        """The conversation as tokens. Raises `Refusal` for one that is too long or that the chat template refuses."""
        limit, characters = self._limit(settings), sum(len(message["content"]) for message in messages)
        if limit is not None and characters > limit * self.longest_token:  # at once, not after it is tokenized
            raise self._too_long(f"{characters:,} characters", limit, settings)
        tokens = (self._long if characters > LONG else self._short).tokens(messages)
        if limit is not None and len(tokens) > limit:
            raise self._too_long(f"{len(tokens):,} tokens", limit, settings)
        return Prompt(tokens, settings)

    def submit(self, prompts: Sequence[Prompt]) -> "list[Future[list[int]]]":
        """See `Batcher.submit`; the prompts have the same settings."""
        return self.batcher.submit([prompt.tokens for prompt in prompts], prompts[0].settings)

    def at_once(self, prompts: Sequence[Prompt], rows: int) -> list[list[int]]:
        """The answers' tokens to any number of prompts, for a caller that is alone: by what is fastest for many."""
        settings = prompts[0].settings
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
        seeds = seeds_of(settings, len(prompts))
        with self.batcher.turn:
            return self.model.generate([prompt.tokens for prompt in prompts], sampling, rows=rows, seeds=seeds).tokens

    def answer(self, prompt: Prompt, tokens: Sequence[int]) -> Answer:
        """What was answered, as text."""
        [text] = answer_texts(self.model.tokenizer, [tokens])
        return Answer(text, len(tokens), len(prompt.tokens), tokens[-1] in self.batcher.ends)

    def _limit(self, settings: Settings) -> int | None:
        """The tokens that a prompt may have."""
        if self.context is None:
            return None
        if settings.max_new_tokens >= self.context:
            raise Refusal(f"{settings.limit} must be less than {self.context:,}, the tokens that the model reads")
        return self.context - settings.max_new_tokens

    def _too_long(self, found: str, limit: int, settings: Settings) -> Refusal:
        return Refusal(
            f"the conversation has {found}, and at most {limit:,} tokens fit: the model reads {self.context:,}, less "
            f"{settings.limit} {settings.max_new_tokens:,}"
        )
