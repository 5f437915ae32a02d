"""The audit's table for Unsloth's form: LoRA on linear layers, and PEFT's `ParamWrapper` on stacks of routed experts.

For ERNIE-4.5 `FastModel.get_peft_model` adapts attention, the dense layer and the shared experts as linear layers, and
of each layer's routed experts the two stacks `gate_up_proj` [experts, 2 x inner, hidden] and `down_proj` [experts,
hidden, inner]. Gate and up are one target there, with one A: fewer parameters than two targets of the same rank.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.architecture import check_targets, skeleton
from ernie_pipeline.models.audit import Table, TargetCount, quant_state, render
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError

STACKS = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
    "gate_proj": ("gate_proj",),
    "up_proj": ("up_proj",),
}
"""Experts' parameters with three dimensions that Unsloth adapts, and the recipe's targets that are in each."""

PARTS = ((".shared_expert", "shared"), (".experts.", "routed"), (".self_attn.", "attention"))


def check_unsloth_model(
    model: nn.Module, config: Any, lora: Lora, *, adapted: bool, training: bool
) -> list[TargetCount]:
    """The table, once it is what the recipe asks for: every target wherever the checkpoint has it, 4-bit and adapted.

    `config` is the checkpoint's own; `adapted`: whether there is an adapter. Raises `PipelineError` with both tables
    where they differ, and when something else is trainable, or an adapter's parameter is not fp32.
    """
    expected = expected_table(config, lora.targets, lora.rank if adapted else 0, training=training)
    found, counted = found_table(model, lora.targets)
    if found != expected:
        raise PipelineError(
            "the model that Unsloth made is not what the recipe asks for (4-bit targets, each with its adapter); set "
            f'training.backend to "peft".\nexpected:\n{render(expected)}\nfound:\n{render(found)}'
        )
    for name, parameter in model.named_parameters():
        if (parameter.requires_grad or "lora_" in name) and id(parameter) not in counted:
            raise PipelineError(f"trainable or adapted outside lora.targets: {name}")
        if "lora_" in name and parameter.dtype != torch.float32:
            raise PipelineError(f"an adapter's parameter is not float32: {name}")
    return [found[key] for key in sorted(found)]


def expected_table(config: Any, targets: Sequence[str], rank: int, *, training: bool) -> Table:
    """What the recipe asks for, from the checkpoint's configuration.

    Raises `PipelineError` for what Unsloth cannot adapt as asked: half of a fused stack, experts of an unknown form, a
    target that no layer has.
    """
    table: Table = {}
    for name, target, shape in _matrices(skeleton(config)):
        if not (_asked(name, target, targets) if len(shape) == 3 else target in targets):
            continue
        copies, outputs, inputs = (1, *shape) if len(shape) == 2 else shape
        row = _row(table, name, target)
        row.modules += copies
        row.base_parameters += copies * inputs * outputs
        row.lora_parameters += copies * rank * (inputs + outputs)  # Hu et al. 2021: A [r, in], B [out, r]
        row.four_bit_parameters = row.base_parameters
        row.trainable_parameters = row.lora_parameters if training else 0
    there = {part for _, target in table for part in STACKS.get(target, (target,))}
    check_targets(targets, there, config.model_type)
    return table


def _asked(name: str, stack: str, targets: Sequence[str]) -> bool:
    if stack not in STACKS:
        raise PipelineError(
            f'backend "unsloth" does not know the form of the experts {name}, and would leave them as they are; set '
            'training.backend to "peft"'
        )
    named = [part for part in STACKS[stack] if part in targets]
    if 0 < len(named) < len(STACKS[stack]):
        raise PipelineError(
            f'backend "unsloth" adapts {" and ".join(STACKS[stack])} of routed experts together, and lora.targets '
            f"names only {named[0]}; name both or neither"
        )
    return bool(named)


def _matrices(model: nn.Module) -> Iterator[tuple[str, str, Sequence[int]]]:
    """(owner's name, target, shape) of each linear layer's weight and of each parameter with three dimensions."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, name.rpartition(".")[2], module.weight.shape
        elif not isinstance(module, nn.Conv1d):
            for last, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 3:
                    yield f"{name}.", last, parameter.shape


def found_table(model: nn.Module, targets: Sequence[str]) -> tuple[Table, set[int]]:
    """What the model in memory holds, and the ids of the adapter's parameters that were counted."""
    table: Table = {}
    counted: set[int] = set()
    for name, module in model.named_modules():
        if (stack := getattr(module, "parameter_name", None)) is not None:  # PEFT's ParamWrapper
            own = _adapter_of(module)
            _count_adapter(_row(table, f"{name}.", stack), own)
            counted |= {id(parameter) for parameter in own}
            continue
        target, base = name.rpartition(".")[2], getattr(module, "base_layer", module)
        if target in targets and isinstance(base, nn.Linear):
            row, own = _row(table, name, target), _adapter_of(module)
            row.modules += 1
            size = base.in_features * base.out_features
            row.base_parameters += size
            row.four_bit_parameters += size if quant_state(base.weight) is not None else 0
            _count_adapter(row, own)
            counted |= {id(parameter) for parameter in own}
        if not isinstance(module, nn.Linear):
            _count_stacks(table, name, module, targets)
    return table, counted


def _count_stacks(table: Table, name: str, module: nn.Module, targets: Sequence[str]) -> None:
    for last, parameter in module.named_parameters(recurse=False):
        shape = _shape(parameter)
        if len(shape) == 3 and set(STACKS.get(last, ())) & set(targets):
            row = _row(table, f"{name}.", last)
            row.modules += shape[0]
            row.base_parameters += shape.numel()
            row.four_bit_parameters += shape.numel() if quant_state(parameter) is not None else 0


def _adapter_of(module: nn.Module) -> list[nn.Parameter]:
    """Of this layer alone: a wrapper's base layer may be a wrapper with an adapter of its own."""
    return [p for name, p in module.named_parameters() if name.startswith("lora_")]


def _count_adapter(row: TargetCount, own: Sequence[nn.Parameter]) -> None:
    row.lora_parameters += sum(parameter.numel() for parameter in own)
    row.trainable_parameters += sum(parameter.numel() for parameter in own if parameter.requires_grad)


def _shape(parameter: torch.Tensor) -> torch.Size:
    """Of what it stands for: a 4-bit parameter lies in bytes."""
    state = quant_state(parameter)
    return torch.Size(
        getattr(parameter, "_original_shape", None) or (parameter.shape if state is None else state.shape)
    )


def _row(table: Table, name: str, target: str) -> TargetCount:
    part = next((part for mark, part in PARTS if mark in name), "dense")
    return table.setdefault((part, target), TargetCount(part, target))
