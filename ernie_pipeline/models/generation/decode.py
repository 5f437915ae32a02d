"""Decoding of all prompts at once, for a merged model (see `merged`).

One static cache holds every row, each at its own position, so that a step is the same work every time: on CUDA it is
captured once for each shape, as a CUDA graph, and replayed. The shapes are few: a step reads the cache as far as the
longest row, rounded up, and has all rows as long as any prompt waits (see `schedule`). Where `decode_step` can take the
model, a step is its kernels, which read each row as far as that goes, and there is one shape for each number of rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ernie_pipeline.models.backend import Progress
from ernie_pipeline.models.generation.decode_step import FusedStep, fits
from ernie_pipeline.models.generation.prefill import Waiting
from ernie_pipeline.models.generation.sampler import GREEDY, Answers, Sampler
from ernie_pipeline.models.generation.schedule import Asked, DecodeSettings, OnFinished, Schedule, Work, settings_for
from ernie_pipeline.models.generation.slots import Slots
from ernie_pipeline.models.memory import capture_graph, round_up
from ernie_pipeline.models.routing import recording

ATTENTION = "ernie_pipeline_decode"


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_tokens: Sequence[int],
    rows: int,
    capture: bool,
    sampler: Sampler = GREEDY,
    seeds: Sequence[int] = (),
    budgets: Sequence[int] = (),
    settings: DecodeSettings | None = None,
    progress: Progress = lambda done, total: None,
    on_answer: OnFinished = lambda index, tokens, logprobs: None,
    work: Work | None = None,
    decoder: "Decoder | None" = None,
    chosen: dict[int, torch.Tensor] | None = None,
) -> Answers:
    """The tokens that follow each prompt (of at least one token), in the prompts' order: up to one of `end_tokens`,
    included.

    At most `rows` are decoded at once. `capture`: replay steps as CUDA graphs. `seeds` [prompts], if not greedy.
    `budgets` [prompts]: the most tokens of each answer, where it is not `max_new_tokens`. `progress` hears (done,
    total) as rows finish, `on_answer` each answer as soon as it is found to be whole. Settings: the device's, if none
    are given. `decoder`: of this model, to go on with what earlier calls made. `chosen`, if given, is filled with what
    `Routes` says of each answer, before `on_answer` hears of it.
    """
    answers = Answers([[] for _ in prompts], [[] for _ in prompts])
    if not prompts:
        return answers
    if settings is None:
        settings = settings_for(model.get_input_embeddings().weight.is_cuda)
    budgets = budgets or [max_new_tokens] * len(prompts)
    most = max(budgets)
    longest = max(len(prompt) + budget for prompt, budget in zip(prompts, budgets, strict=True))
    capacity = round_up(longest, settings.length_step)

    def hear(index: int, tokens: list[int], logprobs: list[float]) -> None:
        answers.tokens[index], answers.logprobs[index] = tokens, logprobs
        on_answer(index, tokens, logprobs)

    with torch.inference_mode(), _attention(model):
        if decoder is None:
            slots = Slots(model, min(rows, len(prompts)), capacity, most, end_tokens, sampler)
            steps = _Steps(model, slots, capture)
        else:
            steps = decoder.steps_for(model, rows, capacity, most, end_tokens, sampler, capture)
        steps.state.record_routes(model, chosen)
        waiting, asked = Waiting(model, prompts, settings.prefill_tokens), Asked(prompts, seeds, budgets)
        Schedule(steps.state, waiting, asked, settings, work or Work()).run(steps.run, hear, progress)
    return answers


class _Rows(Cache):  # type: ignore[misc]
    """The first `rows` rows and `length` columns of a state's cache, as transformers' models use a cache."""

    def __init__(self, state: Slots, rows: int, length: int):
        super().__init__(layers=[])
        self.state, self.rows, self.length = state, rows, length

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column [rows, heads, 1, width] a row at its own position; the part of the cache that is read."""
        at = self.state.positions[: self.rows, None, None, None].expand(key_states.shape)
        keys, values = self.state.keys[layer_idx][: self.rows], self.state.values[layer_idx][: self.rows]
        keys.scatter_(2, at, key_states)
        values.scatter_(2, at, value_states)
        return keys[:, :, : self.length], values[:, :, : self.length]


class _Steps:
    """One step for each shape (rows, length): run as it is the first time, then captured, then replayed.

    The first time loads the kernels that the shape needs, which a capture must not.
    """

    def __init__(self, model: Any, state: Slots, capture: bool):
        self.model, self.state, self.capture = model, state, capture
        self.fused = FusedStep(model) if fits(model) else None
        self.graphs: dict[tuple[int, int, Sampler, bool], torch.cuda.CUDAGraph | None] = {}
        self.pool = torch.cuda.graph_pool_handle() if capture else None

    def run(self, rows: int, length: int) -> None:
        length = length if self.fused is None else 0  # its kernels read each row as far as it goes
        shape = rows, length, self.state.sampler, self.state.routes is not None
        if not self.capture or shape not in self.graphs:
            self.graphs[shape] = None
            self._step(rows, length)
            return
        graph = self.graphs[shape]
        if graph is None:
            graph = self.graphs[shape] = torch.cuda.CUDAGraph()
            with capture_graph(graph, self.pool):
                self._step(rows, length)
        graph.replay()

    def _step(self, rows: int, length: int) -> None:
        """Each row's next token."""
        state = self.state
        if self.fused is None:
            logits = self._by_modules(rows, length)
        else:
            keys, values = ([each[:rows] for each in layers] for layers in (state.keys, state.values))
            chosen: list[torch.Tensor] = []
            logits = self.fused.logits(state.tokens[:rows], state.positions[:rows], keys, values, chosen)
            if state.routes is not None:
                state.routes.record(state.steps[:rows], chosen)
        state.record(rows, state.sampler.draw(logits, state.seeds[:rows], state.steps[:rows]))

    def _by_modules(self, rows: int, length: int) -> torch.Tensor:
        """The logits [rows, vocabulary] of each row's next token, by the model's own modules."""
        state = self.state
        if state.routes is not None:
            with recording(self.model) as chosen:
                logits = self._logits(rows, length)
            state.routes.record(state.steps[:rows], chosen)
            return logits
        return self._logits(rows, length)

    def _logits(self, rows: int, length: int) -> torch.Tensor:
        state = self.state
        tokens, positions = state.tokens[:rows], state.positions[:rows]
        seen = state.columns[:length] <= positions[:, None]
        mask = torch.zeros(seen.shape, dtype=state.keys[0].dtype, device=state.device).masked_fill_(~seen, -torch.inf)
        logits: torch.Tensor = self.model(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=_Rows(state, rows, length),
            use_cache=True,
        ).logits[:, -1]
        return logits


class Decoder:
    """The slots and captured steps of one model, kept from one decode to the next. A model's weights may change in
    between, their places may not."""

    def __init__(self) -> None:
        self.steps: _Steps | None = None

    def steps_for(
        self,
        model: Any,
        rows: int,
        capacity: int,
        max_new_tokens: int,
        end_tokens: Sequence[int],
        sampler: Sampler,
        capture: bool,
    ) -> _Steps:
        """Those that are there where they are large enough, else new ones; empty."""
        if self.steps is None or not self.steps.state.serves(rows, capacity, max_new_tokens, end_tokens):
            if self.steps is not None:  # not to grow again for each longer prompt
                capacity = max(capacity, self.steps.state.capacity)
            self.clear()
            self.steps = _Steps(model, Slots(model, rows, capacity, max_new_tokens, end_tokens, sampler), capture)
        self.steps.state.empty(sampler)
        return self.steps

    def clear(self) -> None:
        """Let go of them."""
        self.steps = None


@contextmanager
def _attention(model: Any) -> Iterator[None]:
    """The model with `_grouped_attention`, and after it with its own again."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token a row: the query heads of a key-value head are taken as its queries.

    transformers' own repeats the keys and values for each of them, which takes more time than reading the weights.
    `query` [rows, heads, 1, width], `key` and `value` [rows, key-value heads, length, width], `attention_mask` [rows,
    1, 1, length], added. Gives [rows, 1, heads, width]. A prefill (no mask, more tokens) goes to transformers' own.
    """
    rows, heads, tokens, width = query.shape
    if attention_mask is None or tokens > 1:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    if query.is_cuda:
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):  # cuDNN's makes a plan for each shape
            output = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    else:  # torch's own kernels for a CPU are made for more queries than one or two
        scores = torch.matmul(grouped * (scaling or width**-0.5), key.transpose(2, 3)).add_(attention_mask)
        output = torch.matmul(scores.softmax(-1), value)
    return output.reshape(rows, 1, heads, width), None


AttentionInterface.register(ATTENTION, _grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
