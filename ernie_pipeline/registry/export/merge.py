"""Base and adapter as one weight: a matrix, or a layer's stack of experts, at a time.

Onto the quantized base: the weight's 4 bits dequantized, plus the adapter, rounded once. It is what was trained and
measured, as the adapter learnt beside the errors of quantization. Onto the original: the checkpoint's own weight plus
the adapter, which nobody measured.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS, skeleton
from ernie_pipeline.models.quantize import COMPUTE_DTYPES, block_size
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.registry.export.adapter import Adapter
from ernie_pipeline.registry.export.base import BaseWeights
from ernie_pipeline.utils.errors import PipelineError

Onto = Literal["quantized", "original"]


@dataclass(frozen=True)
class Unit:
    """What is quantized together: the weights of a linear layer, or those of all experts of a stack, by their names."""

    parameter: str
    """Of transformers' model."""
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Where each weight of a checkpoint belongs."""

    units: tuple[Unit, ...]
    others: tuple[str, ...]
    """Weights that are neither quantized nor adapted."""
    fp32: "re.Pattern[str]"
    """Parameters that transformers keeps in fp32."""

    @property
    def experts(self) -> int:
        """How many routed experts a layer has; 1 where there are none."""
        return max((len(unit.weights) for unit in self.units if unit.parameter.endswith(".down_proj")), default=1)

    def targets(self, wanted: Sequence[str]) -> dict[str, str]:
        """The weights that an adapter on the targets `wanted` changes, and the target of each."""
        names = (weight for unit in self.units for weight in unit.weights)
        return {name: target for name in names if (target := name.split(".")[-2]) in wanted}


def make_plan(config: Any, base: BaseWeights) -> Plan:
    """From the model of the base's configuration. Raises `PipelineError` where a weight is not in the checkpoint.

    Weights of which transformers makes no use, the heads for further tokens, are in none of it.
    """
    model = skeleton(config)
    units = [
        Unit(name, _weights_of(name, parameter, base.shapes))
        for name, parameter in model.named_parameters()
        if _is_quantized(model, name, parameter)
    ]
    quantized = {weight for unit in units for weight in unit.weights}
    if lost := sorted(quantized - base.shapes.keys()):
        raise PipelineError(
            f"base model {base.base.name}: {len(lost)} weights are not in its checkpoint under the names that the hub "
            f"has, among them {lost[0]}; it cannot be exported merged"
        )
    useless = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or []) or "(?!)")
    others = tuple(name for name in base.shapes if name not in quantized and not useless.search(name))
    strict = model._keep_in_fp32_modules_strict or []
    return Plan(tuple(units), others, re.compile("|".join(map(re.escape, strict)) or "(?!)"))


def merged(
    plan: Plan, base: BaseWeights, adapter: Adapter | None, spec: ModelSpec, onto: Onto
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) of the whole model: fp32 and not rounded yet where it is dequantized or adapted, else as it is."""
    for name in plan.others:
        yield name, base.read(name)
    for unit in plan.units:
        values = (base.read(name) for name in unit.weights)
        held = _dequantized(unit, list(values), spec) if onto == "quantized" else values
        for name, value in zip(unit.weights, held, strict=True):
            delta = adapter.deltas.get(name) if adapter else None
            yield name, value if delta is None else value.float() + delta.matrix()


def _dequantized(unit: Unit, values: list[torch.Tensor], spec: ModelSpec) -> Sequence[torch.Tensor]:
    """As the backend holds them: `peft` quantizes each expert by itself, the others a layer's experts as one stack."""
    stacked = [torch.cat(values)] if spec.backend != "peft" else values
    found = torch.cat([_through_4_bits(value, spec) for value in stacked])
    return torch.split(found, [len(value) for value in values])


def _through_4_bits(value: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Dettmers et al. 2023, "QLoRA", section 3."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    four_bits, state = quantize_4bit(
        value.to(COMPUTE_DTYPES[spec.quantization.compute_dtype]),
        blocksize=block_size(value),
        compress_statistics=spec.quantization.double,
        quant_type=spec.quantization.type,
        quant_storage=torch.uint8,
    )
    return dequantize_4bit(four_bits, state).view(value.shape)  # type: ignore[no-any-return]


def _is_quantized(model: Any, name: str, parameter: torch.Tensor) -> bool:
    owner = model.get_submodule(name.rpartition(".")[0])
    is_linear = type(owner) is nn.Linear and name.endswith(".weight") and owner is not model.get_output_embeddings()
    return parameter.ndim == 3 or is_linear


def _weights_of(name: str, parameter: torch.Tensor, shapes: Mapping[str, Any]) -> tuple[str, ...]:
    """The weights that make up a parameter of transformers' model, in its order: expert by expert, gate before up."""
    experts, _, last = name.rpartition(".")
    if parameter.ndim == 2 or last not in FUSED_PROJECTIONS:
        return (name,)
    numbers = range(parameter.shape[0])
    return tuple(f"{experts}.{number}.{target}.weight" for number in numbers for target in FUSED_PROJECTIONS[last])
