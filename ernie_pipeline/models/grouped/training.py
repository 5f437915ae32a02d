"""Learning on documents without padding: flat parameters, captured passes, and spare memory put to use."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.backend import Facts
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.grouped.captured import BUCKET, MAX_TOKENS, CapturedPasses, filled
from ernie_pipeline.models.grouped.flat_parameters import FlatParameters, step_without_waiting
from ernie_pipeline.models.grouped.padding_free import Kept, keep_dequantized, padding_free_loss
from ernie_pipeline.models.grouped.spare_memory import spare_memory
from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.models.micro_batches.layout import Inputs, computed_tokens, concatenate, longest_first
from ernie_pipeline.models.micro_batches.size import ONE_ROW, MicroBatchSize, State
from ernie_pipeline.models.peft.rows import CHECKPOINTING
from ernie_pipeline.models.routing import Replay, replaying
from ernie_pipeline.recipe.execution import Execution


class GroupedTraining:
    """See `TrainingBackend`. On CUDA, from the second step on, passes are captured, and memory that no step needs holds
    experts dequantized; when memory runs out, that goes first."""

    def __init__(
        self, module: Any, device: str, pad_id: int, execution: Execution, steps: Sequence[Sequence[int]]
    ) -> None:
        self.module, self.device, self.pad_id, self.execution = module, device, pad_id, execution
        self.steps = [sorted(step, reverse=True) for step in steps]
        module.train()  # the base was loaded in evaluation mode, which the adapter's wrapper does not tell
        self.flat = FlatParameters([p for p in module.parameters() if p.requires_grad])
        self.parameters: Sequence[nn.Parameter] = [self.flat.values]
        step_without_waiting()
        self.size = MicroBatchSize(execution.micro_batch, ONE_ROW)
        # attention computes no further than it is told, and what fills a captured pass up is a document too
        self.longest = max(2 * BUCKET, *(max(step, default=0) for step in steps))
        self.passes = (
            CapturedPasses(self._loss, self.size.documents, pad_id, self._to_come, device) if self._on_gpu else None
        )
        self.calls = 0
        """Steps whose gradient was computed here."""
        self.steps_begun, self.again = 0, False
        """Steps of the plan that have begun, here or in the process that this one goes on from; whether the last one of
        them begins anew."""
        self.has_fit = False
        """Whether a step has fit into memory, here or in the process that this one goes on from."""
        self.memory_before, self.first_step = 0, [1]
        """Of the first one: bytes of GPU memory in use before it, and its documents' lengths."""
        self.spare, self.kept = 0, Kept(dense=0, layers=0)
        """Bytes that no step needs, and what they hold dequantized."""
        self.lends = False
        """Whether something else takes turns with the steps and needs their spare memory."""
        self.checkpointing = False
        if execution.gradient_checkpointing:
            self._checkpoint()

    @property
    def _on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def forward_backward(
        self,
        documents: Sequence[Document],
        num_tokens: float,
        weights: Sequence[torch.Tensor] | None = None,
        temperature: float = 1.0,
        replay: Replay | None = None,
    ) -> torch.Tensor | None:
        """See `TrainingBackend.forward_backward`."""
        self._begin(documents)
        order = longest_first(documents)
        total = torch.zeros((), device=self.device)
        try:
            self.flat.clear_gradients()
            for rows in self.size.lay_out([len(documents[i].ids) for i in order]):
                places = [order[i] for row in rows for i in row]
                own = None if weights is None else [weights[i] for i in places]
                own_documents = [documents[i] for i in places]
                tokens = sum(len(document.ids) for document in own_documents)
                with replaying(self.module.get_base_model(), replay, [places], tokens):
                    total += self._pass(own_documents, num_tokens, own, temperature, captured=replay is None)
            self.calls, self.has_fit = self.calls + 1, True
            return total
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def release_memory(self) -> str:
        """See `TrainingBackend.release_memory`: dequantized experts, fewer tokens, gradient checkpointing."""
        self.again = True
        self.release_captures()
        free_memory()
        if self.kept.layers:
            fewer = self.kept.layers // 2
            while self.kept.layers > fewer:
                self._spend(self.spare // 2)
            return f"{self.kept.layers} layers' experts kept dequantized"
        if self.kept.dense:
            self._spend(0)
            return "no weights kept dequantized"
        # once a step has fit, not much is missing
        if smaller := self.size.shrink(self.steps, slightly=self.has_fit):
            return smaller
        if self.checkpointing:
            return ""
        self._checkpoint()
        return "gradient checkpointing"

    def release_captures(self) -> bool:
        """Give back the memory of captured passes; whether there were any."""
        return self.passes.release() if self.passes else False

    def lend_memory(self) -> None:
        """To what takes turns with the steps, such as sampling: captured passes and dequantized experts are given up,
        and none are made any more."""
        self.lends = True
        self.release_captures()
        if self.spare:
            self._spend(0)

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """See `TrainingBackend.computed_tokens`."""
        ordered = sorted(lengths, reverse=True)
        width_of = filled if self.passes else int
        return computed_tokens(ordered, self.size.lay_out(ordered), width_of)

    def state(self) -> State:
        """See `TrainingBackend.state`."""
        size = self.size.state(self.execution, checkpointing=self.checkpointing)
        return {**size, "has_fit": self.has_fit, "steps_begun": self.steps_begun}

    def restore(self, state: State) -> None:
        """See `TrainingBackend.restore`."""
        self.steps_begun = int(state.get("steps_begun") or 0)
        if not self.size.restore(state, self.execution):
            return
        self.has_fit = bool(state["has_fit"])
        if state["gradient_checkpointing"] and not self.checkpointing:
            self._checkpoint()

    def facts(self) -> Facts:
        """See `TrainingBackend.facts`."""
        return {
            "micro_batch": self.size.documents,
            "micro_batch_tokens": self.size.tokens,
            "gradient_checkpointing": self.checkpointing,
            "layers_kept_dequantized": self.kept.layers,
            "dense_kept_dequantized": self.kept.dense,
        }

    def _begin(self, documents: Sequence[Document]) -> None:
        self.steps_begun, self.again = self.steps_begun + (not self.again), False
        if not self.module.training:
            self.module.train()
        if self.calls == 0:
            self.flat.bind()  # accelerate moves what several processes train
            self.memory_before = torch.cuda.memory_allocated() if self._on_gpu else 0
            self.first_step = [len(document.ids) for document in documents]
        elif self.calls == 1 and self.passes and not self.passes.begun and not self.lends:
            self._spend_spare_memory()
            self.passes.begin()

    def _pass(
        self,
        documents: Sequence[Document],
        num_tokens: float,
        weights: Sequence[torch.Tensor] | None,
        temperature: float,
        captured: bool,
    ) -> torch.Tensor:
        if captured and self.passes and weights is None and temperature == 1:
            return self.passes(documents, num_tokens)
        inputs = concatenate(documents, self.pad_id, weights=weights)
        on_device = {name: value.to(self.device) for name, value in inputs.items()}
        loss = self._loss(on_device, num_tokens, temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss(self, inputs: Inputs, num_tokens: torch.Tensor | float, temperature: float = 1.0) -> torch.Tensor:
        return padding_free_loss(self.module.get_base_model(), inputs, self.longest, temperature) / num_tokens

    def _to_come(self) -> Iterator[int]:
        """The tokens of the plan's micro-batches from the step under way on."""
        return self.size.tokens_of(self.steps[self.steps_begun - 1 :])

    def _largest(self, most: int = sys.maxsize) -> int:
        return self.size.largest(self.steps, most)

    def _spend_spare_memory(self) -> None:
        """Once the first step has shown what a step takes, with the optimizer's state, the rest may make it faster."""
        standing, passing = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated() - self.memory_before
        free_memory()
        first, largest = self.size.largest([sorted(self.first_step, reverse=True)]), self._largest()
        if largest > MAX_TOKENS:  # it is launched, while the captured ones keep their memory
            largest += self._largest(MAX_TOKENS)
        self._spend(spare_memory(standing, passing, largest / first, self.execution.memory_limit_gib))

    def _spend(self, spare: int) -> None:
        self.spare = spare
        self.kept = keep_dequantized(self.module.get_base_model(), spare, self._largest())

    def _checkpoint(self) -> None:
        self.checkpointing = True
        self.module.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
