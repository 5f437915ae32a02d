"""Engine `unsloth`, for ERNIE-4.5 on CUDA: its base quantised by Unsloth's `FastModel`, a layer's experts all at once.

Unsloth quantises the base once, the routed experts too (`packed.py`). In the processes that use the model its layers
are transformers' and PEFT's, but for the routed experts (`grouped/experts.py`), what adapted layers compute
in (`grouped/lora_linear.py`), and the way from documents to their loss (`grouped/end_to_end.py`).
"""

from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.models.audit import check_model as check_model  # an engine has it
from ernie_pipeline.models.checkpoint.adapter_file import read_into, read_shape
from ernie_pipeline.models.checkpoint.adapter_file import write_adapter as save_adapter  # noqa: F401 - an engine has it
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.lora_linear import speed_up_adapters
from ernie_pipeline.models.grouped.padding_free import EndToEnd, end_to_end_loss, keep_unpacked
from ernie_pipeline.models.grouped.quantized_base import packed_base, read_packed
from ernie_pipeline.models.peft.backend import OWN_MODEL_TYPE, adapted, fresh_adapter
from ernie_pipeline.models.peft.backend import causal_lm_config as causal_lm_config
from ernie_pipeline.models.peft.backend import logits as logits
from ernie_pipeline.utils.errors import PipelineError

MODEL_TYPE = "ernie4_5_moe"
end_to_end: EndToEnd | None = EndToEnd(end_to_end_loss, keep_unpacked)


def base_of(job: dict[str, Any], device: str) -> Any:
    """The frozen 4-bit base model that a job names, from its packed copy; that is made first where it is missing.

    Raises `PipelineError` for a model of another kind, and for another quantisation than Unsloth's.
    """
    base, quantization = job["base"], job["quantization"]
    config = causal_lm_config(base["checkpoint"], base["revision"])
    if config.model_type != MODEL_TYPE:
        raise PipelineError(
            f'engine "unsloth" is for models of the type {MODEL_TYPE}, and {base["name"]} is a {config.model_type}; '
            'set training.engine to "peft"'
        )
    folder = packed_base(base, quantization, job.get("gpu", {}).get("bases"))
    model = read_packed(folder, config, quantization, device)
    model.generation_config = _generation_config(base, model.generation_config)
    model.config.model_type = OWN_MODEL_TYPE
    return model


def _generation_config(base: dict[str, Any], usual: Any) -> Any:
    """The checkpoint's own, which names the tokens that end an answer."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(base["checkpoint"], revision=base["revision"])
    except OSError:
        return usual


def add_adapter(model: Any, lora: dict[str, Any], seed: int) -> Any:
    """A `PeftModel` with a fresh fp32 adapter on every target, initialised from `seed`."""
    if lora["dropout"]:
        raise PipelineError('lora.dropout is not in engine "unsloth"; set it to 0, or training.engine to "peft"')
    torch.manual_seed(seed)
    with_adapter = fresh_adapter(model, lora)
    for module in with_adapter.modules():
        if isinstance(module, GroupedExperts):
            module.add_adapter(lora["rank"], lora["alpha"], lora["targets"])
    speed_up_adapters(with_adapter)
    return with_adapter


def load_adapter(model: Any, folder: Path) -> Any:
    """The base with a saved adapter, frozen. Raises `PipelineError` unless every saved tensor found its place."""
    with_adapter = add_adapter(model, read_shape(folder) | {"dropout": 0.0}, seed=0)
    read_into(with_adapter, folder)
    return with_adapter.requires_grad_(False).eval()


def load(job: dict[str, Any], device: str) -> Any:
    """The model that a job names, checked: base, quantization, lora, and an adapter's folder or none."""
    return adapted(base_of(job, device), job, load_adapter)
