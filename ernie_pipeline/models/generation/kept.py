"""Answers that are kept by row: only prompts that were never answered under the same conditions cost a GPU."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from ernie_pipeline.models.backend import Generates, Generation, Progress, Sampling
from ernie_pipeline.store.row_cache import RowCache


class Answered(NamedTuple):
    """Answers as token ids in the prompts' order; how many were made, of how many tokens together and by what; and how
    many had been kept."""

    tokens: list[list[int]]
    sampled: int
    reused: int
    generated: int
    how: str


def row_key(prompt: Sequence[int], seed: int) -> str:
    """What an answer is kept by: its prompt (token ids) and its seed, 0 for a greedy one. 32 hex digits."""
    return hashlib.sha256(json.dumps([list(prompt), seed]).encode()).hexdigest()[:32]


def answer_rows(
    loaded: Generates,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    kept: RowCache,
    *,
    rows: int,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Answered:
    """The tokens that follow each prompt, see `LoadedModel.generate`, from `kept` where they are there.

    Each new one is kept as soon as it is there, so what was killed goes on where it was. `seeds` are needed where
    `sampling` is not greedy: what nothing decides cannot be kept.
    """
    if seeds is None:
        if sampling.temperature:
            raise ValueError("sampled answers are kept by their seeds: give a seed for each prompt")
        seeds = [0] * len(prompts)
    keys = [row_key(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    missing = {key: i for i, key in enumerate(keys) if kept.get(key) is None}
    indices, names = list(missing.values()), list(missing)
    made = Generation([], [], "kept answers")
    if indices:
        made = loaded.generate(
            [prompts[i] for i in indices],
            sampling,
            rows=rows,
            seeds=[seeds[i] for i in indices],
            progress=progress,
            on_answer=lambda index, tokens: kept.keep(names[index], tokens),
        )
    new = dict(zip(names, made.tokens, strict=True))
    tokens = [new[key] if key in new else kept.get(key) or [] for key in keys]
    return Answered(tokens, len(indices), len(prompts) - len(indices), sum(map(len, made.tokens)), made.how)
