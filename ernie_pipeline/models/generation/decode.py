"""Decoding of all prompts at once, for a merged model (see `merged`).

One static cache holds every row, each at its own position, so that a step is the same work every time: on CUDA it is
captured once for each shape, as a CUDA graph, and replayed. The shapes are few: a step reads the cache as far as the
longest row, rounded up, and when at most half of the rows are unfinished they move together and the batch is halved.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ernie_pipeline.models.backend import OnAnswer, Progress
from ernie_pipeline.models.checkpoint.tokenizer import up_to_end
from ernie_pipeline.models.generation.decode_step import FusedStep, fits
from ernie_pipeline.models.generation.memory_plan import LENGTH_STEP, cache_shape
from ernie_pipeline.models.generation.sampler import GREEDY, Answers, Sampler
from ernie_pipeline.models.memory import capture_graph, round_up

ATTENTION = "ernie_pipeline_decode"


class DecodeSettings(NamedTuple):
    """What decides about speed and memory, and nothing else."""

    check_every: int = 16
    """Steps between two looks at which rows have finished: each look waits for the device."""
    length_step: int = LENGTH_STEP
    """Tokens by which the part of the cache that is read grows."""
    least_rows: int = 8
    """A batch is not halved to fewer: its steps would take as long."""
    prefill_tokens: int = 8_192
    """Tokens of prompts that go through the model together, padding included."""


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
    settings: DecodeSettings = DecodeSettings(),  # noqa: B008 - immutable
    progress: Progress = lambda done, total: None,
    on_answer: OnAnswer = lambda index, tokens: None,
) -> Answers:
    """The tokens that follow each prompt (of at least one token), in the prompts' order: up to one of `end_tokens`,
    included.

    At most `rows` are decoded at once. `capture`: replay steps as CUDA graphs. `seeds` [prompts], if not greedy.
    `progress` hears (done, total) as rows finish, `on_answer` each answer as its row is left.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = Answers([[] for _ in prompts], [[] for _ in prompts])
    if not order:
        return answers
    length = round_up(len(prompts[order[-1]]) + max_new_tokens, settings.length_step)
    state = _State(model, min(rows, len(order)), length, max_new_tokens, end_tokens, sampler)
    with torch.inference_mode(), _attention(model):
        steps = _Steps(model, state, capture)
        for start in range(0, len(order), state.rows):
            batch = order[start : start + state.rows]
            batch_prompts = [prompts[i] for i in batch]
            state.begin(batch_prompts, [seeds[i] for i in batch] if seeds else [])
            _prefill(model, state, batch_prompts, settings.prefill_tokens)
            finished = partial(_tell_of_all, progress, start, len(order))
            for number, tokens, logprobs in _run(steps, state, batch_prompts, settings, finished):
                index, answer = batch[number], up_to_end(tokens, end_tokens)
                answers.tokens[index], answers.logprobs[index] = answer, logprobs[: len(answer)]
                on_answer(index, answer)
    return answers


def _tell_of_all(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


class _State:
    """A batch on the device: for each row its input token, position, whether it has finished, and its answer."""

    def __init__(
        self,
        model: Any,
        rows: int,
        capacity: int,
        max_new_tokens: int,
        end_tokens: Sequence[int],
        sampler: Sampler,
    ):
        embeddings = model.get_input_embeddings().weight
        device, (layers, heads, width) = embeddings.device, cache_shape(model.config)
        self.rows, self.max_new_tokens, self.device, self.sampler = rows, max_new_tokens, device, sampler
        self.end_tokens = torch.tensor(list(end_tokens), dtype=torch.long, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.positions, self.seeds = torch.zeros_like(self.tokens), torch.zeros_like(self.tokens)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.answers = torch.zeros(rows, max_new_tokens, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, max_new_tokens, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.columns = torch.arange(capacity, device=device)
        # zeros, not empty: what a mask hides still takes part, times zero, and must not be infinite
        self.keys, self.values = (
            [torch.zeros(rows, heads, capacity, width, dtype=embeddings.dtype, device=device) for _ in range(layers)]
            for _ in range(2)
        )

    def begin(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        """A new batch: the last token of each prompt is the first step's input, all before it is prefilled."""
        number = len(prompts)
        self.tokens[:number] = torch.tensor([prompt[-1] for prompt in prompts], device=self.device)
        self.positions[:number] = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        self.seeds[: len(seeds)] = torch.tensor(seeds, dtype=torch.long, device=self.device)
        self.finished.zero_()
        self.step.zero_()

    def move_to_front(self, chosen: torch.Tensor) -> None:
        """Move the rows `chosen` (indices, ascending) to the front."""
        number = len(chosen)
        of_rows = (self.tokens, self.positions, self.seeds, self.finished, self.answers, self.logprobs)
        for tensor in (*of_rows, *self.keys, *self.values):
            tensor[:number] = tensor[chosen]


class _Rows(Cache):  # type: ignore[misc]
    """The first `rows` rows and `length` columns of a state's cache, as transformers' models use a cache."""

    def __init__(self, state: _State, rows: int, length: int):
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

    def __init__(self, model: Any, state: _State, capture: bool):
        self.model, self.state, self.capture = model, state, capture
        self.fused = FusedStep(model) if fits(model) else None
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph | None] = {}
        self.pool = torch.cuda.graph_pool_handle() if capture else None

    def run(self, rows: int, length: int) -> None:
        length = length if self.fused is None else 0  # its kernels read each row as far as it goes
        if not self.capture or (rows, length) not in self.graphs:
            self.graphs[rows, length] = None
            self._step(rows, length)
            return
        graph = self.graphs[rows, length]
        if graph is None:
            graph = self.graphs[rows, length] = torch.cuda.CUDAGraph()
            with capture_graph(graph, self.pool):
                self._step(rows, length)
        graph.replay()

    def _step(self, rows: int, length: int) -> None:
        """Each row's next token. Rows that have finished go on unseen, so that no step depends on how many have."""
        state = self.state
        tokens, positions, finished = state.tokens[:rows], state.positions[:rows], state.finished[:rows]
        if self.fused is None:
            logits = self._by_modules(rows, length)
        else:
            keys, values = ([each[:rows] for each in layers] for layers in (state.keys, state.values))
            logits = self.fused.logits(tokens, positions, keys, values)
        following, logprobs = state.sampler.draw(logits, state.seeds[:rows], state.step)
        state.answers[:rows].index_copy_(1, state.step, following[:, None])
        state.logprobs[:rows].index_copy_(1, state.step, logprobs[:, None])
        finished |= (following[:, None] == state.end_tokens).any(dim=1)
        tokens.copy_(following)
        positions += 1
        state.step += 1

    def _by_modules(self, rows: int, length: int) -> torch.Tensor:
        """The logits [rows, vocabulary] of each row's next token, by the model's own modules."""
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


def _run(
    steps: _Steps,
    state: _State,
    prompts: Sequence[Sequence[int]],
    settings: DecodeSettings,
    on_finished: Callable[[int], None],
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Decode prompts that are prefilled: each one's number, tokens and their log-probabilities, whatever came after
    the end token included.

    `on_finished` hears how many of the prompts have finished, whenever that has changed.
    """
    rows = live = len(prompts)
    owners, longest = list(range(rows)), max(map(len, prompts))
    for step in range(1, state.max_new_tokens + 1):
        steps.run(rows, round_up(longest + step - 1, settings.length_step))
        if step % settings.check_every and step < state.max_new_tokens:
            continue
        finished = state.finished[:rows].tolist()
        before, live = live, finished.count(False)
        last = live == 0 or step == state.max_new_tokens
        if last or live < before:
            on_finished(len(prompts) if last else len(prompts) - live)
        fewer = 0 if last else _halved(rows, live, settings.least_rows)
        if fewer < rows:
            staying = sorted(sorted(range(rows), key=finished.__getitem__)[:fewer])  # finished ones only to fill up
            leaving = sorted(set(range(rows)) - set(staying))
            index = torch.tensor(leaving, device=state.device)
            tokens, logprobs = (every[index, :step].tolist() for every in (state.answers, state.logprobs))
            yield from zip([owners[i] for i in leaving], tokens, logprobs, strict=True)
            if last:
                return
            state.move_to_front(torch.tensor(staying, device=state.device))
            owners, rows = [owners[i] for i in staying], fewer


def _halved(rows: int, live: int, least_rows: int) -> int:
    """`rows` halved, rounded up, as long as it holds the live ones and `least_rows`."""
    while (half := -(-rows // 2)) >= max(live, least_rows) and half < rows:
        rows = half
    return rows


def _prefill(model: Any, state: _State, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
    """Keys and values of all tokens but each prompt's last. Padding is on the right: a row overwrites it later."""
    start = 0
    while start < len(prompts):
        end = start + 1
        while end < len(prompts) and (end + 1 - start) * len(prompts[end]) <= max_tokens:  # ascending lengths
            end += 1
        width = len(prompts[end - 1]) - 1
        if width:
            ids = [[*prompt[:-1], *[0] * (width + 1 - len(prompt))] for prompt in prompts[start:end]]
            cache = DynamicCache()
            inputs = torch.tensor(ids, device=state.device)
            model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            for layer, keys, values in zip(cache.layers, state.keys, state.values, strict=True):
                keys[start:end, :, :width] = layer.keys
                values[start:end, :, :width] = layer.values
        start = end


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
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):  # cuDNN's makes a plan for each shape
        output = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(rows, 1, heads, width), None


AttentionInterface.register(ATTENTION, _grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
