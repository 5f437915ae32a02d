"""A model for fast generation: the 4-bit base and its adapter as one of ordinary weights, as far as memory allows.

4-bit layers and separate adapters cost several small kernels for each product, and 64 experts taken apart cost hundreds
a layer. Merged, a layer's experts are two products, and a step of decoding can be captured as a CUDA graph (see
`decode`). Nearly all of a model's weights are its routed experts'. Where they do not all fit beside the cache, some
layers' stay in 4 bits, if a backend has them in a form that can be captured too, and are dequantized at each step
(in registers, where `quantized_experts` knows the form).
"""

import copy
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import nn

from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.memory_plan import Weights, experts_to_leave_quantized, free_bytes, row_bytes
from ernie_pipeline.models.weights import dense_weight, is_linear
from ernie_pipeline.utils.errors import PipelineError

BFLOAT16_CAPABILITY = 8
"""The least major compute capability that has products in bfloat16."""

NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_beams": 1,
    "guidance_scale": 1.0,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
}
"""Values of settings in a checkpoint's generation_config that leave a greedy answer alone; None does too."""


class Generator(NamedTuple):
    """A model to generate with, and in words what it is."""

    model: Any
    kind: str


def fast_generator(model: Any, rows: int, length: int) -> Generator:
    """A backend's `model` merged as far as that is fastest, if that can be captured and fits; else `model` itself.

    `rows` are the prompts to answer, `length` the tokens of the longest with its answer.
    """
    base = base_model(model)
    device, dtype = next(base.parameters()).device, _dtype(base)
    capturable = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= BFLOAT16_CAPABILITY
    if capturable and dtype == torch.bfloat16 and only_argmax(base.generation_config):
        torch.cuda.empty_cache()  # what loading left in small pieces is whole again
        weights = merged_weights(base)
        a_row = row_bytes(base.config, length, dtype)
        quantized = experts_to_leave_quantized(weights, rows, a_row, free_bytes(device))
        if quantized is not None:
            some = f"4-bit experts in {len(quantized)} of {len(weights.experts)} layers"
            return Generator(merge(model, quantized), f"{some if quantized else 'merged bfloat16'}, CUDA graphs")
    return Generator(model, "4-bit")


@torch.no_grad()
def merge(model: Any, quantized: Collection[str] = ()) -> Any:
    """A transformers model of the base's class with the weights that `model` applies, on its device and in its dtype.

    Made layer by layer. What is neither in 4 bits nor adapted (embeddings, norms, routers) is shared with `model`,
    which stays as it is, and so are the modules of routed experts named in `quantized`. Raises `PipelineError` for
    a part that cannot be merged.
    """
    base = base_model(model)
    merged = skeleton(base)
    merged.set_attn_implementation("sdpa")
    _fill(merged, base, "", quantized)
    merged.generation_config = copy.deepcopy(base.generation_config)
    merged.is_merged, merged.is_whole = True, not quantized
    return merged.requires_grad_(False).eval()


@torch.inference_mode()  # which a step may have made weights in, and only there are they written to
def merge_again(merged: Any, model: Any) -> None:
    """Write the weights that `model` applies by now into `merged`, which `merge` made of it without leaving any
    quantized. They stay where they are, so captured steps go on with them."""
    _write(merged, base_model(model))


def _write(target: nn.Module, source: Any) -> None:
    for name, child in target.named_children():
        twin: Any = getattr(source, name)
        own: Any = child
        if hasattr(twin, "dense"):
            for weight, new in zip((own.gate_up_proj, own.down_proj), twin.dense(), strict=True):
                weight.copy_(new)
        elif not is_linear(twin):
            _write(child, twin)
        elif hasattr(twin, "base_layer"):  # the others do not change
            own.weight.copy_(dense_weight(twin))


def decodable(model: Any) -> bool:
    """Whether `merge` made the model and its greedy answers are the highest logits and nothing else."""
    return getattr(model, "is_merged", False) is True and only_argmax(model.generation_config)


def only_argmax(generation_config: Any) -> bool:
    """Whether nothing in a checkpoint's generation_config changes logits, forces tokens or searches."""
    return all(getattr(generation_config, name, None) in (None, value) for name, value in NEUTRAL.items())


def merged_weights(model: Any) -> Weights:
    """The bytes of the weights of `merge(model)`, those that it would share with `model` included."""
    base = base_model(model)
    whole = skeleton(base)
    experts = {name: module for name, module in base.named_modules() if hasattr(module, "dense")}
    of_experts = {name: _bytes(whole.get_submodule(name)) for name in experts}
    capturable = all(module.capturable for module in experts.values())
    return Weights(_bytes(whole) - sum(of_experts.values()), of_experts, capturable)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def skeleton(base: Any) -> Any:
    """A model of the base's class without weights, on the meta device."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(base.config)
    config.model_type = type(config).model_type  # a backend may have renamed it
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=_dtype(base))


def _fill(target: nn.Module, source: Any, path: str, quantized: Collection[str]) -> None:
    """Give `target`, made on the meta device, the weights of its twin `source`."""
    for name, child in target.named_children():
        place = f"{path}{name}"
        twin: Any = getattr(source, name, None)
        if place in quantized:
            setattr(target, name, twin)
        elif hasattr(twin, "dense"):
            gate_up, down = twin.dense()
            setattr(target, name, FusedExperts(gate_up, down, child.act_fn))
        elif isinstance(child, nn.Linear) and is_linear(twin):
            child.weight = _frozen(_fitting(dense_weight(twin), child.weight, place))
            if child.bias is not None:
                child.bias = _frozen(_fitting(getattr(twin, "base_layer", twin).bias, child.bias, place))
        elif twin is not None:
            _fill(child, twin, f"{place}.", quantized)
        else:
            raise PipelineError(f"{place} is missing in the model in memory: it cannot be merged")
    for name, parameter in target._parameters.items():
        if parameter is not None:
            target._parameters[name] = _frozen(_fitting(source._parameters.get(name), parameter, f"{path}{name}"))
    for name, buffer in target._buffers.items():
        if buffer is not None:
            target._buffers[name] = _fitting(source._buffers.get(name), buffer, f"{path}{name}")


def _frozen(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _fitting(found: torch.Tensor | None, wanted: torch.Tensor, place: str) -> torch.Tensor:
    """`found` in the wanted dtype, without a copy where it has it already."""
    if found is None or found.shape != wanted.shape:
        raise PipelineError(f"{place} of the model in memory has not the shape {tuple(wanted.shape)}: cannot be merged")
    return found.detach().to(wanted.dtype)


def base_model(model: Any) -> Any:
    """The model without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _dtype(base: Any) -> torch.dtype:
    """The dtype in which the model computes: its embeddings'."""
    dtype: torch.dtype = base.get_input_embeddings().weight.dtype
    return dtype
