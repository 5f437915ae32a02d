"""Learning on rows: micro-batches of padded or packed documents through transformers' own forward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ernie_pipeline.models.backend import Facts
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.models.micro_batches.layout import Inputs, collate, collate_weights, computed_tokens, longest_first
from ernie_pipeline.models.micro_batches.size import MicroBatchSize, State
from ernie_pipeline.models.routing import Replay, replaying
from ernie_pipeline.models.transformers_model import TransformersModel, batched_logprobs, summed_loss
from ernie_pipeline.recipe.execution import Execution

Rows = Sequence[Sequence[Document]]
Weights = Sequence[Sequence[torch.Tensor]]

CHECKPOINTING = {"use_reentrant": False}

MAX_TOKENS = 4096
"""Tokens of a batch whose loss alone is taken, padding included: they keep a GPU busy; their fp32 logits over 103,424
tokens are 1.6 GiB."""


def loss_of_rows(
    model: TransformersModel,
    rows: Rows,
    num_tokens: float | torch.Tensor,
    weights: Weights | None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The sum of the negative log-likelihood over the rows' counted tokens, by weight, divided by `num_tokens`."""
    inputs = _inputs(model, rows)
    if weights is None and temperature == 1:
        with model.autocast():
            loss: torch.Tensor = model.module(**inputs, use_cache=False, num_items_in_batch=num_tokens).loss
        return loss
    each = _token_losses(model, inputs, temperature)
    if weights is not None:
        each = each * collate_weights(weights, each.shape[1] + 1).to(model.device)[:, 1:]
    return each.sum() / num_tokens


def logprobs_of_rows(
    model: TransformersModel, documents: Sequence[Document], temperature: float, replay: Replay | None
) -> list[torch.Tensor]:
    """See `LoadedModel.token_logprobs`: each document in a row of its own."""

    def logprobs_of(batch: list[int]) -> list[torch.Tensor]:
        inputs = _inputs(model, [[documents[i]] for i in batch])
        with replaying(model.base, replay, [[i] for i in batch], inputs["input_ids"].shape[1]):
            losses = _token_losses(model, inputs, temperature)
        rows = F.pad(-losses, (1, 0))  # of the first token nothing is told
        return [row[: len(documents[i].ids)] for row, i in zip(rows, batch, strict=True)]

    with model.evaluating():
        return batched_logprobs(logprobs_of, documents, MAX_TOKENS, limit_gib=model.limit_gib)


def _inputs(model: TransformersModel, rows: Rows) -> Inputs:
    return {name: value.to(model.device) for name, value in collate(rows, model.tokenizer.pad_token_id).items()}


def _token_losses(model: TransformersModel, inputs: Inputs, temperature: float) -> torch.Tensor:
    """The negative log-likelihood [rows, width - 1] of each token but the first, 0 where it is not counted; fp32."""
    others = {name: value for name, value in inputs.items() if name != "labels"}
    with model.autocast():
        logits = model.module(**others, use_cache=False).logits
    logits, labels = logits[:, :-1].float(), inputs["labels"][:, 1:]
    if temperature != 1:
        logits = logits / temperature
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def loss_sum_of_rows(
    model: TransformersModel,
    documents: Sequence[Document],
    weights: Sequence[torch.Tensor] | None,
    one: float | torch.Tensor,
) -> float:
    """See `LoadedModel.loss_sum`: each document in a row of its own. `one`: 1, as the model's loss takes a divisor."""

    def loss_of(batch: Sequence[Document], own: Sequence[torch.Tensor] | None) -> torch.Tensor:
        rows = [[document] for document in batch]
        return loss_of_rows(model, rows, one, None if own is None else [[each] for each in own])

    with model.evaluating():
        return summed_loss(loss_of, documents, weights, MAX_TOKENS, limit_gib=model.limit_gib)


class RowsTraining:
    """See `TrainingBackend`: gradients are summed over micro-batches, smaller ones where memory runs out."""

    def __init__(self, model: TransformersModel, execution: Execution, steps: Sequence[Sequence[int]]):
        self.model, self.execution, self.steps = model, execution, steps
        model.module.train()  # the base was loaded in evaluation mode, which the adapter's wrapper does not tell
        self.parameters: Sequence[nn.Parameter] = [p for p in model.module.parameters() if p.requires_grad]
        # flash attention heeds positions that start again in single rows only
        packing = execution.packing and "flash" not in str(model.base.config._attn_implementation)
        self.size = MicroBatchSize(execution.micro_batch, execution.pack_tokens if packing else None)
        self.checkpointing = False
        if execution.gradient_checkpointing:
            self._checkpoint()

    def forward_backward(
        self,
        documents: Sequence[Document],
        num_tokens: float,
        weights: Sequence[torch.Tensor] | None = None,
        temperature: float = 1.0,
        replay: Replay | None = None,
    ) -> torch.Tensor | None:
        """See `TrainingBackend.forward_backward`."""
        order = longest_first(documents)
        total = torch.zeros((), device=self.model.device)
        self._begin()
        try:
            for rows in self.size.lay_out([len(documents[i].ids) for i in order]):
                places = [[order[i] for i in row] for row in rows]
                micro_batch = [[documents[i] for i in row] for row in places]
                own = None if weights is None else [[weights[i] for i in row] for row in places]
                width = max(sum(len(document.ids) for document in row) for row in micro_batch)
                with replaying(self.model.base, replay, places, width):
                    total += self._passes(micro_batch, num_tokens, own, temperature)
            return total
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def release_memory(self) -> str:
        """See `TrainingBackend.release_memory`: fewer documents at a time, then gradient checkpointing."""
        for parameter in self.parameters:
            parameter.grad = None
        free_memory()
        if smaller := self.size.shrink(self.steps, slightly=False):
            return smaller
        if self.checkpointing:
            return ""
        self._checkpoint()
        return "gradient checkpointing"

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """See `TrainingBackend.computed_tokens`."""
        ordered = sorted(lengths, reverse=True)
        return computed_tokens(ordered, self.size.lay_out(ordered))

    def state(self) -> State:
        """See `TrainingBackend.state`."""
        return self.size.state(self.execution, checkpointing=self.checkpointing)

    def restore(self, state: State) -> None:
        """See `TrainingBackend.restore`."""
        restored = self.size.restore(state, self.execution)
        if restored and state["gradient_checkpointing"] and not self.checkpointing:
            self._checkpoint()

    def facts(self) -> Facts:
        """See `TrainingBackend.facts`."""
        return {
            "micro_batch": self.size.documents,
            "micro_batch_tokens": self.size.tokens,
            "gradient_checkpointing": self.checkpointing,
        }

    def _begin(self) -> None:
        if not self.model.module.training:
            self.model.module.train()  # its layers heed gradient checkpointing and dropout in training only
        for parameter in self.parameters:
            parameter.grad = None

    def _passes(self, rows: Rows, num_tokens: float, weights: Weights | None, temperature: float) -> torch.Tensor:
        loss = loss_of_rows(self.model, rows, self._divisor(num_tokens), weights, temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _divisor(self, num_tokens: float) -> float | torch.Tensor:
        """The number of tokens as the model's loss takes it."""
        return num_tokens

    def _checkpoint(self) -> None:
        self.checkpointing = True
        enable: Any = self.model.module.gradient_checkpointing_enable
        enable(gradient_checkpointing_kwargs=CHECKPOINTING)
