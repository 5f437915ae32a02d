"""Load an export back as its reader will: in a process of its own that has transformers and PEFT, and not this package.

What runs there is `plain_script.py`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from ernie_pipeline.utils.child_process import ask_script

SCRIPT = Path(__file__).with_name("plain_script.py")
LOGITS = "logits.safetensors"


class Computed(NamedTuple):
    """What a model says after prompts: the fp32 logits [tokens, vocabulary] of each, and its greedy answer's tokens."""

    logits: list[torch.Tensor]
    answers: list[list[int]]


class PlainRequest(BaseModel):
    """What is loaded how, and what is computed with it: the same in every form. `scratch`: the child's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["peft", "unsloth", "merged"]
    folder: Path
    base: str
    revision: str | None
    dtype: Literal["float32", "bfloat16"]
    device: str
    prompts: tuple[tuple[int, ...], ...]
    max_new_tokens: int
    end_tokens: tuple[int, ...]
    pad_token: int
    scratch: Path


class PlainAnswer(BaseModel):
    """The answers' tokens; `placed`: how many tensors of the file are in the model, of `tensors`; `strange`: names that
    only one of the two has, or whose values differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: tuple[tuple[int, ...], ...]
    placed: int
    tensors: int
    strange: tuple[str, ...]


def load_plain(request: PlainRequest) -> tuple[Computed, PlainAnswer]:
    """Load it and compute. Raises `PipelineError` with one line that says why not."""
    answer = ask_script(SCRIPT, request, PlainAnswer, request.scratch, os.environ)
    from safetensors.torch import load_file

    saved = load_file(request.scratch / LOGITS)
    logits = [saved[str(number)] for number in range(len(request.prompts))]
    return Computed(logits, [list(tokens) for tokens in answer.answers]), answer


class Distance(NamedTuple):
    """How far logits are apart: at most, and the root of their mean square as a share of that of the logits themselves,
    each token's mean taken off. Where experts are chosen, rounding may choose another for a token: then the greatest
    difference says little, and the share more."""

    most: float
    share: float


def distance(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> Distance:
    """Infinite where one is no number."""
    theirs = torch.cat([logits.double() for logits in wanted])
    apart = torch.cat([logits.double() for logits in found]) - theirs
    if not torch.isfinite(apart).all():
        return Distance(float("inf"), float("inf"))
    spread = theirs - theirs.mean(dim=-1, keepdim=True)
    return Distance(float(apart.abs().max()), float(apart.norm() / spread.norm()))
