"""The seam: what training, evaluation and the registry see of a model, and nothing of how it is held and computed.

A backend holds a 4-bit base model and its LoRA adapter in its own way (`peft/`, `grouped/`, `unsloth/`). CUDA graphs,
flat parameters, kernels, merged weights and what is done when memory runs out are its own affair. One contract test
runs over all of them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch import nn

from ernie_pipeline.models.audit import TargetCount
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.micro_batches.size import State
from ernie_pipeline.models.routing import Replay
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.recipe.sections import Lora

BackendName = Literal["peft", "grouped", "unsloth"]

Progress = Callable[[int, int], None]
"""Hears (done, total)."""

OnAnswer = Callable[[int, list[int]], None]
"""Hears a prompt's index and the tokens of its answer."""

Facts = dict[str, int | float | str | bool | None]
"""What a backend did, by name, for a report."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: greedily at `temperature` 0.

    `top_p`: from the fewest tokens that together have this probability. Nothing else of a checkpoint's
    generation_config takes part in sampling, such as its top_k.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    with_routing: bool = False
    """Whether the experts that were chosen come with the answers, where the backend can tell; it decides no answer."""


class Generation(NamedTuple):
    """Answers as token ids, in the prompts' order, each up to its end token, included; `how`: in words, by what.

    `logprobs`: each token's log-probability in nats at the temperature it was drawn at, before `top_p` cut; at
    temperature 1 for greedy answers. `routing`: of each prompt with its answer the experts chosen, as `Replay` has
    them; None where that was not asked for, or cannot be told.
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    how: str
    routing: list[torch.Tensor] | None = None


class TrainingBackend(Protocol):
    """A loaded model that learns. It computes a step's gradient however it likes; the trainer does the rest."""

    parameters: Sequence[nn.Parameter]
    """What an optimizer steps and clips. `forward_backward` leaves their gradients in `.grad`."""

    def forward_backward(
        self,
        documents: Sequence[Document],
        num_tokens: float,
        weights: Sequence[torch.Tensor] | None = None,
        temperature: float = 1.0,
        replay: Replay | None = None,
    ) -> torch.Tensor | None:
        """The loss of a step, a detached scalar: the sum over all counted tokens of the negative log-likelihood in
        nats, times its token's weight where `weights` [tokens] are given, divided by `num_tokens`. The likelihood is
        that of the logits divided by `temperature`, by the experts of `replay` if there is one.

        Its gradient takes the place of what stood in `.grad`. None: memory ran out, and nothing is left of the try.
        """

    def release_memory(self) -> str:
        """Make the next try take less memory. What was given up, in a clause; "" when there is nothing left to give."""

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """The tokens, padding included, that a step over documents of these lengths computes at present."""

    def state(self) -> State:
        """What a later process has to know to go on computing in the same way."""

    def restore(self, state: State) -> None:
        """Compute as `state` says, or with less memory."""

    def facts(self) -> Facts:
        """How it was computed."""


class Generates(Protocol):
    """What answers prompts: a `LoadedModel`, or another generator of its answers."""

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
        """The tokens that follow each prompt (token ids). `rows`: how many are answered at a time, where memory does
        not decide.

        `seeds` [prompts]: what a sampled answer follows from, but for rounding, whatever else is in its batch; None:
        drawn from torch's own generator. Equal prompts, the samples of one, are read once where the backend can.
        `on_answer` hears of each answer once, as soon as it is there; what was heard is not lost where memory runs out.
        """


class LoadedModel(Generates, Protocol):
    """A 4-bit base model in memory, with an adapter or without."""

    spec: ModelSpec
    device: str
    tokenizer: Tokenizer
    module: nn.Module
    """As torch holds it, for a library that asks for one."""

    @property
    def end_tokens(self) -> Sequence[int]:
        """The tokens that end an answer."""

    def add_adapter(self, lora: Lora, seed: int) -> None:
        """Give it a fresh fp32 adapter on every target, initialised from `seed`. Raises `PipelineError`."""

    def save_adapter(self, folder: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json`: the same bytes for the same adapter."""

    def audit(self, *, training: bool) -> list[TargetCount]:
        """What is 4-bit and what is trainable, target by target; `training`: whether the adapter should be.

        Raises `PipelineError` with what was expected and what was found where the two differ.
        """

    def without_adapter(self) -> AbstractContextManager[None]:
        """Compute as the base model meanwhile."""

    def logits(self, input_ids: Sequence[int]) -> torch.Tensor:
        """The logits [tokens, vocabulary] of one sequence, in fp32 on the CPU."""

    def loss_sum(self, documents: Sequence[Document], weights: Sequence[torch.Tensor] | None = None) -> float:
        """The sum over all counted tokens of the negative log-likelihood in nats, times its token's weight if given.

        The documents may be any number; memory that runs out is met with smaller batches. Raises `PipelineError` when
        a single one does not fit.
        """

    def token_logprobs(
        self, documents: Sequence[Document], temperature: float = 1.0, replay: Replay | None = None
    ) -> list[torch.Tensor]:
        """Each token's log-probability in nats given those before it, of the logits divided by `temperature`: fp32
        [tokens] on the CPU for each document, 0 for tokens that are not counted. As the model learns, without a
        gradient and without dropout; memory that runs out is met as in `loss_sum`.

        `replay`: by the experts that it has for each document's tokens; it counts where the model's own differ.
        """

    def generating_again(self, rows: int) -> AbstractContextManager[None]:
        """Meanwhile calls of `generate` are many, and the model learns between them: what they generate with is kept,
        with the adapter's weights written again at each call, where it is small beside the free memory.

        Then it is `rows` prompts that are answered at a time, in every call. Other memory is handed back after each.
        """

    def release_generator(self) -> bool:
        """Keep nothing of that any more: memory ran out. Whether there was anything."""

    def training(self, execution: Execution, steps: Sequence[Sequence[int]], fp8: bool = False) -> TrainingBackend:
        """Ready to learn. `steps`: the lengths in tokens of each step's documents, all that is to come. With `fp8`,
        the base's products are made in 8-bit floats where that is faster; raises `PipelineError` where they cannot."""

    def trainable(self) -> dict[str, torch.Tensor]:
        """The adapter's parameters by name, the tensors themselves, in an order that does not change."""


class Backend(Protocol):
    """A way to hold and compute a model."""

    name: BackendName

    def load(self, spec: ModelSpec, device: str) -> LoadedModel:
        """The model that `spec` names, frozen, on `device` ("cpu", "cuda", "cuda:1"); with its adapter, if it names
        one, held against the recipe. Raises `PipelineError` for what cannot be loaded faithfully."""
