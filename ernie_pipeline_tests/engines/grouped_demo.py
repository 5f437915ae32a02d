"""The demo model as the engine unsloth holds it, on a CPU: quantised here by bitsandbytes, written and read packed."""

from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.engines import peft_engine
from ernie_pipeline.engines.packed import read_packed, write_packed
from ernie_pipeline.engines.quantize import quantize_linears

FLAT = {"type": "nf4", "double": False, "compute_dtype": "float32"}
NESTED = FLAT | {"double": True}


def pack_demo(folder: Path, quantization: dict[str, Any]) -> None:
    """The demo's base with fused, quantised experts, as Unsloth leaves them."""
    from bitsandbytes.nn import Params4bit
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.ndim == 3:
                size = 64 if parameter.shape[-1] % 64 == 0 else 32  # as engine `peft` has it
                double, kind = quantization["double"], quantization["type"]
                packed = Params4bit(parameter.detach(), False, None, size, double, kind)
                setattr(module, name, packed.to("cpu"))
    quantize_linears(model, quantization, torch.device("cpu"))
    write_packed(model, folder)


def read_demo(folder: Path, quantization: dict[str, Any]) -> Any:
    """The model that `pack_demo` wrote."""
    model = read_packed(folder, peft_engine.causal_lm_config(str(BASE), None), quantization, "cpu")
    model.config.model_type = peft_engine.OWN_MODEL_TYPE
    return model
