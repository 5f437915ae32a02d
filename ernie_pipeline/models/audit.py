"""What is 4-bit, what is trainable, and how many parameters each target got, held against the recipe.

transformers, bitsandbytes and PEFT each skip modules in silence: routed experts stay in 16 bits, shared experts lose
their adapter. So the expected numbers come from the checkpoint's own configuration, built once on the meta device and
never touched, and the found ones from the model in memory; where they differ, the run stops and shows both. Beyond the
targets every matrix is counted: what is not 4-bit has to be one of those that may stay, see `architecture.py`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.architecture import check_architecture, matrices, projections, stays
from ernie_pipeline.models.grouped.experts import TARGETS, ExpertsAdapter, GroupedExperts
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.text_table import aligned


@dataclass
class TargetCount:
    """One row of the table: a target in one part of the model."""

    part: str
    target: str
    modules: int = 0
    base_parameters: int = 0
    four_bit_parameters: int = 0
    lora_parameters: int = 0
    trainable_parameters: int = 0


Table = dict[tuple[str, str], TargetCount]


def expected_table(blank: nn.Module, lora: Lora, *, adapted: bool = True) -> Table:
    """What the recipe asks for, from the checkpoint's `skeleton`: every target everywhere, all 4-bit, all trainable."""
    table: Table = {}
    for name, parameter in blank.named_parameters():
        for target, copies, inputs, outputs in projections(name, parameter):
            if target in lora.targets:
                row = _row(table, _part(name), target)
                row.modules += copies
                row.base_parameters += copies * inputs * outputs
                row.four_bit_parameters = row.base_parameters
                # Hu et al. 2021: A [r, in], B [out, r]
                row.lora_parameters += copies * lora.rank * adapted * (inputs + outputs)
                row.trainable_parameters = row.lora_parameters
    return table


def found_table(model: nn.Module, targets: Sequence[str]) -> Table:
    """What the model in memory holds, module by module."""
    from bitsandbytes.nn import Linear4bit

    table: Table = {}
    for name, module in model.named_modules():
        if isinstance(module, GroupedExperts):
            _add_stacks(table, name, module, targets)
            continue
        base = getattr(module, "base_layer", module)
        target = name.rpartition(".")[2]
        if target not in targets or not isinstance(base, nn.Linear):
            continue
        row = _row(table, _part(name), target)
        size = base.in_features * base.out_features
        row.modules += 1
        row.base_parameters += size
        row.four_bit_parameters += size if isinstance(base, Linear4bit) and base.weight.bnb_quantized else 0
        for part, parameter in module.named_parameters():
            if "lora_" in part:
                row.lora_parameters += parameter.numel()
                row.trainable_parameters += parameter.numel() if parameter.requires_grad else 0
    return table


def _add_stacks(table: Table, name: str, experts: GroupedExperts, targets: Sequence[str]) -> None:
    for target in TARGETS:
        if target in targets:
            row = _row(table, _part(f"{name}."), target)
            modules, size, four_bit = experts.parameters_of(target)
            own = [] if experts.adapter is None else [*experts.adapter.parameters_of(target)]
            row.modules += modules
            row.base_parameters += size
            row.four_bit_parameters += four_bit
            row.lora_parameters += sum(p.numel() for p in own)
            row.trainable_parameters += sum(p.numel() for p in own if p.requires_grad)


def check_model(
    model: nn.Module, config: Any, lora: Lora, *, adapted: bool = True, training: bool
) -> list[TargetCount]:
    """The table, sorted. Raises `PipelineError` with both tables when the model is not what was asked for.

    `config` is the checkpoint's own; `adapted`: whether there is an adapter; `training`: whether it is trainable.
    Beyond the table: every matrix is 4-bit or one that may stay in 16 bits; nothing outside the targets is trainable or
    an adapter's; and every adapter weight is fp32.
    """
    blank = check_architecture(config, lora.targets)
    expected, found = expected_table(blank, lora, adapted=adapted), found_table(model, lora.targets)
    if not training:
        for row in expected.values():
            row.trainable_parameters = 0
    if found != expected:
        raise PipelineError(
            "the model in memory is not what the recipe asks for (4-bit targets, each with its adapter); "
            f"do not use this run.\nexpected:\n{render(expected)}\nfound:\n{render(found)}"
        )
    _check_matrices(model, blank)
    counted = {id(p) for n, m in model.named_modules() for p in _of_targets(n, m, lora.targets)}
    stray = [
        name for name, p in model.named_parameters() if (p.requires_grad or "lora_" in name) and id(p) not in counted
    ]
    if stray:
        raise PipelineError(f"trainable or adapted outside lora.targets: {', '.join(stray[:3])} ({len(stray)} in all)")
    wrong = [name for name, p in model.named_parameters() if "lora_" in name and p.dtype != torch.float32]
    if wrong:
        raise PipelineError(f"adapter weights that are not float32: {', '.join(wrong[:3])} ({len(wrong)} in all)")
    return [found[key] for key in sorted(found)]


def _check_matrices(model: nn.Module, blank: nn.Module) -> None:
    """Raise `PipelineError` unless all matrices of the skeleton `blank` are there, 4-bit where they may not stay."""
    found = list(matrices(model))
    left = [name for name, owner, p in found if quant_state(p) is None and not stays(model, owner)]
    if left:
        raise PipelineError(
            f"{len(left)} matrices of the base model are not in 4 bits, among them {left[0]}; do not use this run"
        )
    wanted = sum(each.parameter.numel() for each in matrices(blank)) + _own_output(model) - _own_output(blank)
    held = sum(p.numel() if quant_state(p) is None else quant_state(p).shape.numel() for _, _, p in found)
    if held != wanted:
        raise PipelineError(
            f"the model in memory holds matrices of {held:,} values, and its configuration says {wanted:,}; do not use "
            "this run"
        )


def _own_output(model: Any) -> int:
    """The values of an output layer that is not the embeddings: a checkpoint may hold one that differs, whatever its
    configuration says of tying them, and transformers takes that one."""
    output = model.get_output_embeddings()
    tied = output is None or output.weight is model.get_input_embeddings().weight
    return 0 if tied else int(output.weight.numel())


def quant_state(parameter: torch.Tensor) -> Any:
    """bitsandbytes' description of a 4-bit parameter, or None."""
    return getattr(parameter, "quant_state", None)


def _of_targets(name: str, module: nn.Module, targets: Sequence[str]) -> list[nn.Parameter]:
    """A module's parameters if it is a target, and those of a stack's adapter that belong to one."""
    if isinstance(module, ExpertsAdapter):
        return [p for target in targets for p in module.parameters_of(target)]
    return [*module.parameters()] if name.rpartition(".")[2] in targets else []


def render(table: Table) -> str:
    """The table as text, one target a line."""
    counts = [asdict(table[key]) for key in sorted(table)]
    rows = [[f"{value:,}" if isinstance(value, int) else value for value in count.values()] for count in counts]
    return aligned([[*TargetCount.__dataclass_fields__], *rows])


def _part(name: str) -> str:
    for mark, part in ((".shared_experts.", "shared"), (".experts.", "routed"), (".self_attn.", "attention")):
        if mark in name:
            return part
    return "dense"


def _row(table: Table, part: str, target: str) -> TargetCount:
    return table.setdefault((part, target), TargetCount(part, target))


def totals(rows: Sequence[TargetCount]) -> dict[str, int]:
    """The table's numeric columns, summed over all targets."""
    sums: dict[str, int] = defaultdict(int)
    for row in rows:
        for column, value in asdict(row).items():
            if isinstance(value, int):
                sums[column] += value
    return dict(sums)
