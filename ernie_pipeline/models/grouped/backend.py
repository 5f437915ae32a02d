"""Backend `grouped`, for ERNIE-4.5 on CUDA: a base quantized once and kept, a layer's experts all at once.

Its layers are transformers' and PEFT's, but for the routed experts (`experts.py`), what adapted layers compute in
(`lora_linear.py`, `dense_products.py`), and the way from documents to their loss (`padding_free.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.models.backend import BackendName, TrainingBackend
from ernie_pipeline.models.checkpoint.adapter_file import read_into, read_shape, write_adapter
from ernie_pipeline.models.checkpoint.config import full_precision_config
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.grouped.compile_kernels import compile_kernels, small_base
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.lora_linear import speed_up_adapters
from ernie_pipeline.models.grouped.padding_free import padding_free_logprobs, padding_free_loss
from ernie_pipeline.models.grouped.quantized_base import load_quantized
from ernie_pipeline.models.grouped.training import GroupedTraining
from ernie_pipeline.models.micro_batches.layout import Inputs, concatenate
from ernie_pipeline.models.peft.backend import OWN_MODEL_TYPE
from ernie_pipeline.models.peft.backend import with_adapter as peft_adapter
from ernie_pipeline.models.routing import Replay, replaying
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.models.transformers_model import TransformersModel, batched_logprobs, summed_loss
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError

MODEL_TYPE = "ernie4_5_moe"

MAX_TOKENS = 16384
"""Tokens of a batch whose loss is taken: their logits are never there at once, and each batch dequantizes all
weights."""


class GroupedBackend:
    """See the module."""

    name: BackendName = "grouped"

    def load(self, spec: ModelSpec, device: str) -> "GroupedModel":
        """See `Backend.load`. The base's quantized copy is made first where it is missing."""
        model = GroupedModel(spec, device, read_base(spec, device))
        if spec.adapter:
            model.read_adapter(spec.adapter)
        model.audit(training=False)
        return model


def read_base(spec: ModelSpec, device: str) -> Any:
    """The frozen 4-bit base model. Raises `PipelineError` for a model of another kind."""
    base, quantization = spec.base, spec.quantization.model_dump(mode="json")
    config = full_precision_config(base.checkpoint, base.revision)
    if config.model_type != MODEL_TYPE:
        raise PipelineError(
            f'backend "grouped" is for models of the type {MODEL_TYPE}, and {base.name} is a {config.model_type}; '
            'set training.backend to "unsloth" or "peft"'
        )
    compiling = partial(_compiling, spec, config, quantization, device) if torch.device(device).type == "cuda" else None
    module = load_quantized(base, config, quantization, spec.quantized_bases, device, compiling)
    module.generation_config = _generation_config(base.checkpoint, base.revision, module.generation_config)
    module.config.model_type = OWN_MODEL_TYPE
    return module


def _compiling(spec: ModelSpec, config: Any, quantization: dict[str, Any], device: str) -> Callable[[], None]:
    """To compile what a training of that model launches, in another thread. What is made here is not made there, as
    transformers makes a model in a default type of the whole process."""
    small = GroupedModel(spec, device, small_base(config, quantization, device))
    small.add_adapter(spec.lora.model_copy(update={"dropout": 0.0}), seed=0)
    index = torch.cuda.current_device()

    def compile_them() -> None:
        with torch.cuda.device(index):
            compile_kernels(small)

    return compile_them


def _generation_config(checkpoint: str, revision: str | None, usual: Any) -> Any:
    """The checkpoint's own, which names the tokens that end an answer."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(checkpoint, revision=revision)
    except OSError:
        return usual


def with_adapter(module: Any, lora: Lora, seed: int, fresh: bool = True) -> Any:
    """A `PeftModel` around a base, with an fp32 adapter on every target, initialised from `seed`; not `fresh`, the
    experts' part is left to whoever reads one: 340 million random numbers less."""
    if lora.dropout:
        raise PipelineError(
            'lora.dropout is not in backend "grouped"; set it to 0, or training.backend to "peft" or "unsloth"'
        )
    adapted = peft_adapter(module, lora, seed)
    for each in adapted.modules():
        if isinstance(each, GroupedExperts):
            each.add_adapter(lora.rank, lora.alpha, lora.targets, fresh)
    speed_up_adapters(adapted)
    return adapted


class GroupedModel(TransformersModel):
    """ERNIE-4.5 with each layer's experts as one module, perhaps with an adapter on all of it."""

    captures: GroupedTraining | None = None
    """A training of this model, whose captured passes hold memory."""

    def add_adapter(self, lora: Lora, seed: int) -> None:
        """See `LoadedModel.add_adapter`."""
        self.module = with_adapter(self.module, lora, seed)
        self.spec = self.spec.model_copy(update={"lora": lora})

    def save_adapter(self, folder: Path) -> None:
        """See `LoadedModel.save_adapter`."""
        write_adapter(self.module, folder, self.spec.base.name, self.spec.base.revision)

    def read_adapter(self, folder: Path) -> None:
        """Add a saved adapter, frozen. Raises `PipelineError` unless every saved tensor found its place."""
        saved = Lora(**(read_shape(folder) | {"dropout": 0.0}))  # the audit holds it against the recipe's, in `spec`
        self.module = with_adapter(self.module, saved, seed=0, fresh=False)
        read_into(self.module, folder)
        self.module.requires_grad_(False).eval()

    def loss_sum(self, documents: Sequence[Document], weights: Sequence[torch.Tensor] | None = None) -> float:
        """See `LoadedModel.loss_sum`."""
        longest = max(len(document.ids) for document in documents)

        def loss_of(batch: Sequence[Document], own: Sequence[torch.Tensor] | None) -> torch.Tensor:
            return padding_free_loss(self.base, self._inputs(batch, own), longest)

        with self.evaluating():
            return summed_loss(loss_of, documents, weights, MAX_TOKENS, release=self._release, limit_gib=self.limit_gib)

    def token_logprobs(
        self, documents: Sequence[Document], temperature: float = 1.0, replay: Replay | None = None
    ) -> list[torch.Tensor]:
        """See `LoadedModel.token_logprobs`."""
        longest = max((len(document.ids) for document in documents), default=0)

        def logprobs_of(batch: list[int]) -> Sequence[torch.Tensor]:
            lengths, inputs = [len(documents[i].ids) for i in batch], self._inputs([documents[i] for i in batch])
            with replaying(self.base, replay, [batch], sum(lengths)):
                logprobs = padding_free_logprobs(self.base, inputs, longest, temperature)
            return torch.split(logprobs, lengths)

        with self.evaluating():
            return batched_logprobs(logprobs_of, documents, MAX_TOKENS, release=self._release, limit_gib=self.limit_gib)

    def _inputs(self, batch: Sequence[Document], weights: Sequence[torch.Tensor] | None = None) -> Inputs:
        inputs = concatenate(batch, self.tokenizer.pad_token_id, weights=weights)
        return {name: value.to(self.device) for name, value in inputs.items()}

    def _release(self) -> bool:
        return self.release_generator() or (self.captures.release_captures() if self.captures else False)

    def before_generating(self) -> None:
        """A training that is under way lends the memory that only makes it faster."""
        if self.captures:
            self.captures.lend_memory()

    def training(self, execution: Execution, steps: Sequence[Sequence[int]], fp8: bool = False) -> TrainingBackend:
        """See `LoadedModel.training`."""
        self.limit_gib = execution.memory_limit_gib
        for experts in (module for module in self.base.modules() if fp8 and isinstance(module, GroupedExperts)):
            experts.train_in_fp8()
        self.captures = GroupedTraining(self.module, self.device, self.tokenizer.pad_token_id, execution, steps)
        return self.captures
