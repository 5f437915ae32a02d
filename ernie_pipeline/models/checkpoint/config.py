"""A checkpoint's configuration, once it is known to be a causal language model's."""

import json
from pathlib import Path
from typing import Any

from ernie_pipeline.demo import BASE
from ernie_pipeline.utils.errors import PipelineError, first_line


def causal_lm_config(checkpoint: str, revision: str | None) -> Any:
    """The configuration of a checkpoint folder or hub id. Raises `PipelineError` for another kind of model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it meets in a broken file
        raise PipelineError(
            f"base model {checkpoint}: no readable config.json ({first_line(error)}); set base_model.name to a hub id "
            "or a folder with a transformers checkpoint"
        ) from error
    classes = config.architectures or []
    own = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)  # "GPT2LMHeadModel" of a gpt2
    if own is None or not any(c == own or c.endswith("ForCausalLM") for c in classes):
        raise PipelineError(
            f"base model {checkpoint} is not a causal language model (model_type {config.model_type!r}, architectures "
            f"{classes}); set base_model.name to one that transformers' AutoModelForCausalLM can load"
        )
    return config


def full_precision_config(checkpoint: str, revision: str | None) -> Any:
    """The same of a checkpoint that is not quantized yet. Raises `PipelineError` for one that is."""
    config = causal_lm_config(checkpoint, revision)
    if quantized := getattr(config, "quantization_config", None):
        method = dict(quantized).get("quant_method", "somehow") if isinstance(quantized, dict) else "somehow"
        raise PipelineError(
            f"base model {checkpoint} is quantized already ({method}); set base_model.name to the one in 16 bits that "
            "it was made from"
        )
    return config


def model_type(name: str, revision: str) -> str:
    """The `model_type` that config.json of `base_model.name` says, read without transformers.

    Of a hub id the one small file is fetched, once. Raises `PipelineError` when it cannot be read: a guess would
    change what is built.
    """
    try:
        folder = BASE if name == "demo" else Path(name).expanduser()
        if not folder.is_dir():
            from huggingface_hub import hf_hub_download

            folder = Path(hf_hub_download(name, "config.json", revision=revision)).parent
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except Exception as error:  # the hub's client raises many kinds
        raise PipelineError(
            f"base model {name}: its config.json cannot be read ({first_line(error)}); check base_model.name, or set "
            "training.backend to a backend by name"
        ) from error
