"""Backend `peft`: transformers, bitsandbytes NF4 and PEFT, on a CPU or on CUDA, with no silent gaps.

The base model's experts are taken apart, its linear layers quantized, and its `config.model_type` renamed: PEFT keys
its remap of `gate_proj/up_proj/down_proj` (which drops the shared experts and the dense layer) on that name, at
injection and at reload.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ernie_pipeline.models.architecture import check_architecture
from ernie_pipeline.models.backend import BackendName, TrainingBackend
from ernie_pipeline.models.checkpoint.adapter_file import WEIGHTS, check_places, name_base
from ernie_pipeline.models.checkpoint.config import full_precision_config
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.peft.experts import unfuse_experts
from ernie_pipeline.models.peft.rows import RowsTraining, logprobs_of_rows, loss_sum_of_rows
from ernie_pipeline.models.quantize import COMPUTE_DTYPES, quantize_linears
from ernie_pipeline.models.routing import Replay
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.models.transformers_model import TransformersModel
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError, first_line

OWN_MODEL_TYPE = "ernie_pipeline_unfused"


class PeftBackend:
    """See the module."""

    name: BackendName = "peft"

    def load(self, spec: ModelSpec, device: str) -> "PeftModel4bit":
        """See `Backend.load`."""
        base, quantization = spec.base, spec.quantization.model_dump(mode="json")
        check_architecture(full_precision_config(base.checkpoint, base.revision), spec.lora.targets)
        module = load_base(base.checkpoint, base.revision, quantization, device)
        if spec.adapter:
            module = load_adapter(module, spec.adapter)
        model = PeftModel4bit(spec, device, module)
        model.audit(training=False)
        return model


class PeftModel4bit(TransformersModel):
    """A base model of 4-bit layers, every expert a linear layer of its own, perhaps with PEFT's adapter."""

    def add_adapter(self, lora: Lora, seed: int) -> None:
        """See `LoadedModel.add_adapter`."""
        self.module = with_adapter(self.module, lora, seed)
        self.spec = self.spec.model_copy(update={"lora": lora})

    def save_adapter(self, folder: Path) -> None:
        """See `LoadedModel.save_adapter`."""
        self.module.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's card template; the registry writes the real card
        name_base(folder, self.spec.base.name, self.spec.base.revision)

    def loss_sum(self, documents: Sequence[Document], weights: Sequence[torch.Tensor] | None = None) -> float:
        """See `LoadedModel.loss_sum`."""
        return loss_sum_of_rows(self, documents, weights, 1)

    def token_logprobs(
        self, documents: Sequence[Document], temperature: float = 1.0, replay: Replay | None = None
    ) -> list[torch.Tensor]:
        """See `LoadedModel.token_logprobs`."""
        return logprobs_of_rows(self, documents, temperature, replay)

    def training(self, execution: Execution, steps: Sequence[Sequence[int]], fp8: bool = False) -> TrainingBackend:
        """See `LoadedModel.training`."""
        if fp8:
            raise PipelineError('training.fp8 is not in backend "peft"; set it to false')
        self.limit_gib = execution.memory_limit_gib
        return RowsTraining(self, execution, steps)


def load_base(checkpoint: str, revision: str | None, quantization: dict[str, Any], device: str) -> Any:
    """The frozen base model with 4-bit linear layers on `device` ("cpu", "cuda", "cuda:1").

    `checkpoint` is a folder or a hub id, `revision` a resolved commit of the latter.
    Raises `PipelineError` for a checkpoint that cannot be read, lacks a weight or has others, is quantized already, or
    is not a causal language model.
    """
    from transformers import AutoModelForCausalLM

    config = full_precision_config(checkpoint, revision)
    dtype = COMPUTE_DTYPES[quantization["compute_dtype"]]
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            checkpoint, revision=revision, dtype=dtype, config=config, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise PipelineError(f"base model {checkpoint}: its weights cannot be loaded ({first_line(error)})") from error
    if missing := sorted(loading["missing_keys"]):  # transformers has made them up
        raise PipelineError(
            f"base model {checkpoint}: its weights cannot be loaded "
            f"({len(missing)} are not there, among them {missing[0]})"
        )
    if strange := sorted(loading["unexpected_keys"]):  # but what transformers knows to be of no use
        raise PipelineError(
            f"base model {checkpoint}: its weights cannot be loaded "
            f"(config.json has no place for {len(strange)} of them, among them {strange[0]})"
        )
    unfuse_experts(model)
    quantize_linears(model, quantization, torch.device(device))
    model.to(device).requires_grad_(False).eval()
    model.config.model_type = OWN_MODEL_TYPE
    return model


def with_adapter(module: Any, lora: Lora, seed: int) -> Any:
    """A `PeftModel` around a base, with a fresh fp32 adapter on every linear layer that is a target, initialised from
    `seed`."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(module, config, autocast_adapter_dtype=True)


def load_adapter(model: Any, folder: Path) -> Any:
    """The base with a saved adapter, frozen. Raises `PipelineError` unless every saved tensor found its place."""
    from peft import PeftModel
    from safetensors import safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            saved = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        with_adapter = PeftModel.from_pretrained(model, folder, is_trainable=False, autocast_adapter_dtype=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise PipelineError(f"adapter {folder} cannot be loaded ({first_line(error)})") from error
    placed = {
        name.replace(".default.", "."): tuple(parameter.shape)
        for name, parameter in with_adapter.named_parameters()
        if "lora_" in name
    }
    check_places(folder, saved, placed)
    return with_adapter.eval()
