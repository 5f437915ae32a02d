"""Answers to prompts that come from many callers: one thread generates, in batches of what waits, a piece at a time.

A piece is a few dozen tokens. After it a prompt that has no end yet goes back to the end of the queue, so that a long
answer takes turns with short ones, and one whose caller has gone is dropped. Going on costs a pass over what is there
already; pieces grow with its length, so that this stays a small part. Every other batch is of those for which it costs
least, however many wait before them: who asks little does not wait for a round of all others.
"""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.registry.serving.conversation import Settings
from ernie_pipeline.registry.serving.refusal import Refusal

PIECE = 64
"""The tokens that a batch makes at a time, at least. For 16 answers of 256 tokens the demo model took 8 % more CPU time
than in one go; with 32 tokens at a time, 46 % more (2026-11-28)."""

PIECE_OF_LENGTH = 32
"""The part of what is there already that a batch makes at a time, where that is more than PIECE: one in so many."""

MAX_WAITING = 512
"""The prompts that may wait; more are refused at once."""

STRIDE = 1_000_003
"""How far apart the seeds of two pieces are, for each token between them: prompts asked together are 1 apart."""

LIKE = 64
"""Prompts share a batch whose lengths differ by less than that many tokens, or by less than a factor of two."""

BATCH_TOKENS, BATCH_TOKENS_CPU = 65_536, 4_096
"""The tokens that are there already of a batch's prompts, in all: about a second's pass over them. A prompt that has
more is alone. Measured on two CPU cores (2026-11-28) with prompts of 1,930 tokens; the other is a GPU's by its rate."""


@dataclass(eq=False)
class Waiting:
    """A prompt, what was made of its answer so far, and the future that its caller waits for, or has cancelled.

    `seed`: what the answer follows from, whoever else is in its batches.
    """

    prompt: Sequence[int]
    settings: Settings
    seed: int
    made: list[int] = field(default_factory=list)
    alone: bool = False
    answer: "Future[list[int]]" = field(default_factory=Future)

    @property
    def length(self) -> int:
        """The tokens that are there already."""
        return len(self.prompt) + len(self.made)

    @property
    def left(self) -> int:
        """The tokens that the answer may still get."""
        return self.settings.max_new_tokens - len(self.made)

    def goes_with(self, other: "Waiting") -> bool:
        """Whether one call can go on with both, and little of it is padding."""
        mine, theirs = self.settings, other.settings
        if self.alone or other.alone:
            return False
        if (mine.temperature, mine.top_p) != (theirs.temperature, theirs.top_p):
            return False
        shorter, longer = sorted((self.length, other.length))
        return longer - shorter < LIKE or longer < 2 * shorter


class Batcher:
    """Answers prompts with `model`, at most `max_batch` of them in one call."""

    def __init__(self, model: LoadedModel, max_batch: int, max_waiting: int = MAX_WAITING):
        self.model, self.max_batch, self.max_waiting = model, max_batch, max_waiting
        self.ends = frozenset(model.end_tokens)
        self.turn = threading.Lock()
        """Held while the model computes."""
        self._queue: list[Waiting] = []
        self._lock = threading.Lock()
        self._working = False
        self._shortest_next = False
        self._batch_tokens = BATCH_TOKENS_CPU if str(model.device).startswith("cpu") else BATCH_TOKENS

    def check_room(self, number: int = 1) -> None:
        """Raise `Refusal` unless `number` more prompts may wait."""
        with self._lock:
            self._check_room(number)

    def submit(self, prompts: Sequence[Sequence[int]], settings: Settings) -> list["Future[list[int]]"]:
        """Queue prompts (token ids). Each future gets the answer's tokens, its end token included.

        To cancel a future is to stop the work on it. Raises `Refusal` when too many wait.
        """
        seeds = seeds_of(settings, len(prompts))
        waiting = [Waiting(prompt, settings, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        with self._lock:
            self._check_room(len(waiting))
            self._queue += waiting
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="answers").start()
        return [one.answer for one in waiting]

    def _check_room(self, number: int) -> None:
        self._queue = [one for one in self._queue if not one.answer.done()]
        if len(self._queue) + number > self.max_waiting:
            raise Refusal(
                f"{len(self._queue)} questions wait already, and no more than {self.max_waiting} may; ask again later",
                503,
            )

    def _work(self) -> None:
        """As long as somebody waits, and the process does not end: a thread that is cut off would crash it."""
        while batch := self._next_batch():
            try:
                with self.turn:
                    self._go_on(batch)
            except Exception as error:
                self._failed(batch, error)
            with self._lock:
                self._queue += [one for one in batch if not one.answer.done()]

    def _next_batch(self) -> list[Waiting]:
        """Those that waited longest, or every other time that are shortest, and go together, taken from the queue.

        Empty when the work is over.
        """
        with self._lock:
            going_on = threading.main_thread().is_alive()
            self._queue = [one for one in self._queue if not one.answer.done()] if going_on else []
            batch = self._like(self._first()) if self._queue else []
            self._queue = [one for one in self._queue if one not in batch]
            self._working = bool(batch)
            return batch

    def _first(self) -> Waiting:
        self._shortest_next = not self._shortest_next
        return self._queue[0] if self._shortest_next else min(self._queue, key=lambda one: one.length)

    def _like(self, first: Waiting) -> list[Waiting]:
        """The first and those that go with it, as many as a batch may have."""
        batch, tokens = [first], first.length
        for one in self._queue:
            fits = len(batch) < self.max_batch and tokens + one.length <= self._batch_tokens
            if one is not first and fits and first.goes_with(one):
                batch.append(one)
                tokens += one.length
        return batch

    def _go_on(self, batch: Sequence[Waiting]) -> None:
        """Make the next piece of each answer, and give the callers those that are whole."""
        settings = batch[0].settings
        longest = max(one.length for one in batch)
        piece = min(max(PIECE, longest // PIECE_OF_LENGTH), max(one.left for one in batch))
        sampling = Sampling(piece, settings.temperature, settings.top_p)
        # each piece draws other numbers than the one before it
        seeds = [(one.seed + STRIDE * len(one.made)) % 2**62 for one in batch]
        prompts = [[*one.prompt, *one.made] for one in batch]
        made = self.model.generate(prompts, sampling, rows=self.max_batch, seeds=seeds)
        for one, tokens in zip(batch, made.tokens, strict=True):
            new = tokens[: one.left]
            one.made += new
            if not one.left or len(new) < piece or new[-1] in self.ends:
                _give(one, one.made)

    def _failed(self, batch: Sequence[Waiting], error: Exception) -> None:
        """Out of memory, a batch is tried again one by one; any other error, or that of a single one, is its own."""
        out_of_memory = is_out_of_memory(error)
        error.__traceback__ = None  # its frames hold what took the memory
        if out_of_memory:
            free_memory()
        for one in batch:
            if out_of_memory and len(batch) > 1:
                one.alone = True
            elif out_of_memory:
                _give(
                    one, Refusal(f"memory ran out for a conversation of {one.length:,} tokens; send a shorter one", 503)
                )
            else:
                _give(one, error)


def _give(one: Waiting, answer: list[int] | Exception) -> None:
    """To the caller, unless that has gone meanwhile."""
    with suppress(InvalidStateError):
        if isinstance(answer, Exception):
            one.answer.set_exception(answer)
        else:
            one.answer.set_result(answer)


def seeds_of(settings: Settings, number: int) -> list[int]:
    """A seed for each of `number` prompts that were asked together: from the one that was given, or any."""
    if settings.seed < 0:
        return [random.getrandbits(62) for _ in range(number)]
    return [(settings.seed + index) % 2**62 for index in range(number)]
