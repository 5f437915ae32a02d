"""Whether an architecture can be held in 4 bits and adapted as the recipe asks, told before any weight is read.

Every matrix of the model, and every stack of matrices with three dimensions, has to be one of: the weight of an exact
`nn.Linear`, quantized; a layer's routed experts in transformers' plain form, quantized; or what stays as it is, see
`stays`. Anything else would be left in 16 bits and without an adapter in silence, or compute something else.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import nn

from ernie_pipeline.models.quantize import block_size
from ernie_pipeline.utils.errors import PipelineError, first_line

FUSED_PROJECTIONS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""transformers' fused expert parameters, and the LoRA targets whose rows they hold, one after the other."""

PLAIN_EXPERTS = {"is_transposed": False, "has_bias": False, "has_gate": True, "is_concatenated": True}
"""What `transformers.integrations.moe.use_experts_implementation` writes on experts that compute
down(act(gate(x)) * up(x)) with gate above up in one parameter [experts, 2 x intermediate, hidden]."""


class Matrix(NamedTuple):
    """A parameter with two dimensions or more, and the module that it belongs to."""

    name: str
    owner: nn.Module
    parameter: torch.Tensor


def skeleton(config: Any) -> Any:
    """The model of a checkpoint's configuration on the meta device: shapes, and no memory.

    Raises `PipelineError` for a configuration of which no model can be made.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:  # each model has its own way to stumble over a value
        raise PipelineError(
            f"no model of the type {config.model_type} can be made as its config.json says ({first_line(error)}); set "
            "base_model.name to another model"
        ) from error


def matrices(model: Any) -> Iterator[Matrix]:
    """A model's matrices and stacks of matrices but the adapter's, a tied one once; a bias is none, in any shape."""
    seen: set[int] = set()
    for path, owner in model.named_modules():
        for last, parameter in owner.named_parameters(recurse=False):
            name = f"{path}.{last}" if path else last
            is_other = parameter.ndim < 2 or "lora_" in name or last.endswith("bias")
            if not is_other and id(parameter) not in seen:
                seen.add(id(parameter))
                yield Matrix(name, owner, parameter)


def stays(model: Any, owner: nn.Module) -> bool:
    """Whether a module's matrices stay in 16 bits: embeddings, the output layer, convolutions, and routers.

    transformers 5 has a class of its own for a router that may not be quantized (`...TopKRouter`, `Llama4Router`),
    sometimes one under `nn.Linear`; a router that is a plain `nn.Linear` is quantized like any other.
    """
    if owner is model.get_output_embeddings() or isinstance(owner, nn.Embedding | nn.modules.conv._ConvNd):
        return True
    kind = type(owner).__name__
    return type(owner) is not nn.Linear and kind.endswith(("Router", "Gate"))


def is_plain_experts(module: nn.Module) -> bool:
    """Whether a module holds a layer's experts as `FUSED_PROJECTIONS` and computes what `PLAIN_EXPERTS` says."""
    from transformers.integrations.moe import _default_apply_gate  # what its own kernels call for the plain form

    return (
        all(getattr(module, name, None) == value for name, value in PLAIN_EXPERTS.items())
        and getattr(type(module), "_apply_gate", None) is _default_apply_gate
        and {name for name, p in module._parameters.items() if p is not None} == {*FUSED_PROJECTIONS}
        and all(module._parameters[name].ndim == 3 for name in FUSED_PROJECTIONS)  # type: ignore[union-attr]
        and hasattr(module, "act_fn")
    )


def check_architecture(config: Any, targets: Sequence[str]) -> Any:
    """The skeleton of a configuration, once each of its matrices has its place and each LoRA target a layer.

    Raises `PipelineError` that names the first matrix, or the targets, for which that does not hold.
    """
    model = skeleton(config)
    for name, owner, parameter in matrices(model):
        if stays(model, owner):
            continue
        if type(owner) is not nn.Linear and not is_plain_experts(owner):
            raise PipelineError(
                f"a model of the type {config.model_type} cannot be held in 4 bits faithfully: {name} "
                f"{list(parameter.shape)} of {type(owner).__name__} is neither a plain linear layer's nor experts of a "
                "known form; set base_model.name to another model"
            )
        block_size(parameter)
    there = {target for name, _, parameter in matrices(model) for target, *_ in projections(name, parameter)}
    check_targets(targets, there, config.model_type)
    return model


def check_targets(targets: Sequence[str], there: Set[str], model_type: str) -> None:
    """Raise `PipelineError` unless each LoRA target is among those that are `there`."""
    lost = [target for target in targets if target not in there]
    if not lost:
        return
    remedy = "set base_model.name to another model" if len(lost) == len(targets) else "take it out of lora.targets"
    raise PipelineError(
        f"lora.targets names {', '.join(lost)}, and a model of the type {model_type} has no such layer; {remedy}"
    )


def projections(name: str, parameter: torch.Tensor) -> list[tuple[str, int, int, int]]:
    """(target, copies, inputs, outputs) of the projections that a checkpoint's parameter holds."""
    last = name.removesuffix(".weight").rpartition(".")[2]
    if parameter.ndim == 3 and last in FUSED_PROJECTIONS:
        copies, outputs, inputs = parameter.shape
        return [(target, copies, inputs, outputs // len(FUSED_PROJECTIONS[last])) for target in FUSED_PROJECTIONS[last]]
    return [(last, 1, parameter.shape[1], parameter.shape[0])] if parameter.ndim == 2 else []
