"""Engine `peft`: transformers, bitsandbytes NF4 and PEFT, on a CPU or on CUDA, with no silent gaps.

The base model's experts are taken apart, its linear layers quantised, and its `config.model_type` renamed: PEFT keys
its remap of `gate_proj/up_proj/down_proj` (which drops the shared experts and the dense layer) on that name, at
injection and at reload.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ernie_pipeline.models.audit import check_model as check_model  # an engine has it
from ernie_pipeline.models.checkpoint.adapter_file import WEIGHTS, check_places, name_base
from ernie_pipeline.models.peft.experts import unfuse_experts
from ernie_pipeline.models.quantize import COMPUTE_DTYPES, quantize_linears
from ernie_pipeline.utils.errors import PipelineError

OWN_MODEL_TYPE = "ernie_pipeline_unfused"
end_to_end = None
"""Its model takes rows, padded or packed, and no documents laid end to end."""


def base_of(job: dict[str, Any], device: str) -> Any:
    """The frozen 4-bit base model that a job names, see `load_base`."""
    base = job["base"]
    return load_base(base["checkpoint"], base["revision"], job["quantization"], device)


def load_base(checkpoint: str, revision: str | None, quantization: dict[str, Any], device: str) -> Any:
    """The frozen base model with 4-bit linear layers on `device` ("cpu", "cuda", "cuda:1").

    `checkpoint` is a folder or a hub id, `revision` a resolved commit of the latter.
    Raises `PipelineError` for a checkpoint that cannot be read, lacks a weight, or is not a causal language model.
    """
    from transformers import AutoModelForCausalLM

    config = causal_lm_config(checkpoint, revision)
    dtype = COMPUTE_DTYPES[quantization["compute_dtype"]]
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            checkpoint, revision=revision, dtype=dtype, config=config, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise PipelineError(f"base model {checkpoint}: its weights cannot be loaded ({_first_line(error)})") from error
    if missing := sorted(loading["missing_keys"]):  # transformers has made them up
        raise PipelineError(
            f"base model {checkpoint}: its weights cannot be loaded "
            f"({len(missing)} are not there, among them {missing[0]})"
        )
    unfuse_experts(model)
    quantize_linears(model, quantization, torch.device(device))
    model.to(device).requires_grad_(False).eval()
    model.config.model_type = OWN_MODEL_TYPE
    return model


def causal_lm_config(checkpoint: str, revision: str | None) -> Any:
    """The checkpoint's configuration, once it is known to be a causal language model's."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise PipelineError(
            f"base model {checkpoint}: no readable config.json ({_first_line(error)}); set base_model.name to a hub id "
            "or a folder with a transformers checkpoint"
        ) from error
    classes = config.architectures or []
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or not any(
        c.endswith("ForCausalLM") for c in classes
    ):
        raise PipelineError(
            f"base model {checkpoint} is not a causal language model (model_type {config.model_type!r}, architectures "
            f"{classes}); set base_model.name to one that transformers' AutoModelForCausalLM can load"
        )
    return config


def add_adapter(model: Any, lora: dict[str, Any], seed: int) -> Any:
    """A `PeftModel` with a fresh fp32 adapter on every target, initialised from `seed`."""
    torch.manual_seed(seed)
    return fresh_adapter(model, lora)


def fresh_adapter(model: Any, lora: dict[str, Any]) -> Any:
    """A `PeftModel` with an adapter on every linear layer that is a target."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=list(lora["targets"]),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def save_adapter(model: Any, folder: Path, base_name: str, revision: str | None) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`: the same bytes for the same adapter, on any path.

    `base_name` and `revision` are the recipe's name of the base and its resolved commit, not where it lay here.
    """
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card template; the registry writes the real card
    name_base(folder, base_name, revision)


def load_adapter(model: Any, folder: Path) -> Any:
    """The base with a saved adapter, frozen. Raises `PipelineError` unless every saved tensor found its place."""
    from peft import PeftModel
    from safetensors import safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            saved = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        with_adapter = PeftModel.from_pretrained(model, folder, is_trainable=False, autocast_adapter_dtype=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise PipelineError(f"adapter {folder} cannot be loaded ({_first_line(error)})") from error
    placed = {
        name.replace(".default.", "."): tuple(parameter.shape)
        for name, parameter in with_adapter.named_parameters()
        if "lora_" in name
    }
    check_places(folder, saved, placed)
    return with_adapter.eval()


def load(job: dict[str, Any], device: str) -> Any:
    """The model that a job names, checked: base, quantization, lora, and an adapter's folder or none."""
    return adapted(base_of(job, device), job, load_adapter)


def adapted(model: Any, job: dict[str, Any], load_one: Callable[[Any, Path], Any]) -> Any:
    """A base model with the job's adapter, if it names one, held against the recipe."""
    base, lora = job["base"], job["lora"]
    if job.get("adapter"):
        model = load_one(model, Path(job["adapter"]))
    else:
        lora = {**lora, "rank": 0}
    check_model(model, causal_lm_config(base["checkpoint"], base["revision"]), lora, training=False)
    return model


def logits(model: nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    """The model's logits [tokens, vocabulary] in fp32 on the CPU for one sequence of token ids [tokens]."""
    device = next(model.parameters()).device
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=input_ids[None].to(device), use_cache=False).logits
    return output[0].float().cpu()


def _first_line(error: BaseException) -> str:
    """The first line of an error that says something: not "Error(s) in loading state_dict for ...:"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)[:300]
