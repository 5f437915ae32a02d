"""The demo model as backend `grouped` holds it, on a CPU."""

from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.grouped import backend as grouped_backend
from ernie_pipeline.models.grouped.backend import GroupedModel
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.quantize_checkpoint import quantize_checkpoint
from ernie_pipeline.models.grouped.quantized_base import read_quantized
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.quantize import COMPUTE_DTYPES, quantize_linears
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.sections import Lora

FLAT = {"type": "nf4", "double": False, "compute_dtype": "float32"}
NESTED = FLAT | {"double": True}
LORA = Lora(rank=4, alpha=8)


def stack(weight: torch.Tensor, quantization: dict[str, Any]) -> Any:
    """[experts, outputs, inputs] in 4 bits, with as many values a constant as engine `peft` has."""
    from bitsandbytes.nn import Params4bit

    size = 64 if weight.shape[-1] % 64 == 0 else 32
    return Params4bit(weight.detach(), False, None, size, quantization["double"], quantization["type"]).to("cpu")


def quantized_by_bitsandbytes(quantization: dict[str, Any], checkpoint: Path = BASE) -> Any:
    """What transformers loads of the base, quantized parameter by parameter; transformers cannot compute its stacks."""
    from transformers import AutoModelForCausalLM

    dtype = COMPUTE_DTYPES[quantization["compute_dtype"]]
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.ndim == 3:
                setattr(module, name, stack(parameter, quantization))
    quantize_linears(model, quantization, torch.device("cpu"))
    return model


def quantize_demo(folder: Path, quantization: dict[str, Any], checkpoint: Path = BASE) -> None:
    """Write the demo's base, or another, quantized into `folder`."""
    config = causal_lm_config(str(checkpoint), None)
    quantize_checkpoint(str(checkpoint), None, config, quantization, folder, "cpu")


def read_demo(folder: Path, quantization: dict[str, Any], checkpoint: Path = BASE) -> Any:
    """The model that `quantize_demo` wrote."""
    model = read_quantized(folder, causal_lm_config(str(checkpoint), None), quantization, "cpu")
    model.config.model_type = peft_backend.OWN_MODEL_TYPE
    return model


def grouped_demo(folder: Path, spec: ModelSpec) -> GroupedModel:
    """The base of `spec` as backend `grouped` loads it."""
    checkpoint = Path(spec.base.checkpoint)
    quantize_demo(folder, FLAT, checkpoint)
    return GroupedModel(spec.model_copy(update={"backend": "grouped"}), "cpu", read_demo(folder, FLAT, checkpoint))


def adapted_grouped(model: Any, lora: Lora = LORA) -> Any:
    """`model` with an adapter that changes its logits."""
    model = grouped_backend.with_adapter(model, lora, seed=0)
    change(model)
    return model


@torch.no_grad()
def change(model: torch.nn.Module) -> None:
    """Give every B of an adapter other values than zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.05, generator=generator)


def random_experts(experts: int = 5, hidden: int = 64, inner: int = 32) -> GroupedExperts:
    """A layer of small experts without an adapter."""
    generator = torch.Generator().manual_seed(2)
    gate_up = torch.randn(experts, 2 * inner, hidden, generator=generator) / hidden**0.5
    down = torch.randn(experts, hidden, inner, generator=generator) / inner**0.5
    return GroupedExperts(stack(gate_up, FLAT), stack(down, FLAT))
