"""The adapter as plain PEFT loads it, and as Unsloth does: the same tensors, two configurations.

transformers 5 holds a layer's experts in two parameters, `gate_up_proj` [experts, 2 x inner, hidden] and `down_proj`;
PEFT 0.21 adapts such a parameter by `target_parameters` (its `ParamWrapper`): one A [experts x rank, in] and one B
[out, rank x experts], the expert the fastest axis of B's columns. Gate and up of an expert, each of rank r, are one
pair of rank 2 r: A = [A_gate; A_up], B = diag(B_gate, B_up), so alpha doubles too and the product is the same.

Of a model of this type PEFT's loader rewrites the targets gate_proj, up_proj and down_proj to those parameters, and
forgets the linear layers of the same names: the dense layer and the shared experts. So these are named as parameters
too, `shared_experts.gate_proj.weight`. Unsloth's loader keeps them, as modules: there they are 4-bit layers.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.checkpoint.adapter_file import CONFIG, WEIGHTS
from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.registry.export.adapter import PREFIX, Adapter, Delta
from ernie_pipeline.utils.errors import PipelineError

EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
REWRITTEN = ("gate_proj", "up_proj", "down_proj")
"""Targets that PEFT rewrites to parameters of a stack, wherever a target's last part is one of them."""
SUFFIX = re.compile(r"(?:.+\.)?(?:layers|h|blocks)\.\d+\.(.+)")
"""A layer's own part of a name."""

Tensors = dict[str, torch.Tensor]
Experts = Mapping[int, Mapping[str, Delta]]
"""The deltas of a layer's experts, by number and target."""


def write_peft(
    adapter: Adapter, base: BaseCheckpoint, experts: int, folder: Path, form: Literal["peft", "unsloth"]
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`. `experts`: how many a layer of the base has.

    Raises `PipelineError` where PEFT's form cannot hold the adapter.
    """
    from safetensors.torch import save_file

    layers: dict[str, dict[int, dict[str, Delta]]] = {}
    tensors: Tensors = {}
    linear = set()
    for name, delta in adapter.deltas.items():
        if match := EXPERT.fullmatch(name):
            layers.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = delta
        else:
            linear.add(_suffix(name))
            tensors |= _pair(name.removesuffix(".weight"), delta.lora_a, delta.lora_b)
    stacks = _stacks(layers, experts)
    ranks: dict[str, int] = {}
    for place, own in layers.items():
        for stack in stacks:
            inner = ".base_layer" if stack == "gate_up_proj" and len(stacks) > 1 else ""  # the wrapper of the first
            a, b, ranks[stack] = _stacked(own, stack, experts)
            tensors |= _pair(place + inner, a, b)
    save_file({name: tensors[name] for name in sorted(tensors)}, folder / WEIGHTS, metadata={"format": "pt"})
    own_names = {_suffix(place) for place in layers}
    parameters = sorted(f"{name}.{stack}" for name in own_names for stack in stacks)
    config = _config(adapter, base, linear, parameters, ranks, form)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _stacks(layers: Mapping[str, Experts], experts: int) -> list[str]:
    """The parameters of a stack that are adapted, in the order in which PEFT wraps them; the same in every layer."""
    found = {place: frozenset(target for deltas in own.values() for target in deltas) for place, own in layers.items()}
    for place, own in layers.items():
        uneven = len(own) != experts or any(set(deltas) != found[place] for deltas in own.values())
        if uneven or len({*found.values()}) > 1:
            raise PipelineError(
                f"PEFT adapts all experts of every layer alike, and this adapter does not ({place}); export it merged"
            )
    targets = next(iter(found.values()), frozenset())
    return [stack for stack, parts in FUSED_PROJECTIONS.items() if targets & {*parts}]


def _stacked(own: Experts, stack: str, experts: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A [experts x rank, in], B [out, rank x experts] and the rank, see the module."""
    pairs = [_fused(own[number], FUSED_PROJECTIONS[stack]) for number in range(experts)]
    if len({(a.shape, b.shape) for a, b in pairs}) > 1:
        raise PipelineError("PEFT has one rank for all experts of a layer, and this adapter several; export it merged")
    a, b = torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])
    return a.flatten(0, 1), b.permute(1, 2, 0).flatten(1, 2), a.shape[1]


def _fused(deltas: Mapping[str, Delta], parts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """One pair for the projections whose rows lie one after the other; one without an adapter has rows of zeros."""
    there = [deltas[part] for part in parts if part in deltas]
    if all(torch.equal(each.lora_a, there[0].lora_a) for each in there) and len(there) == len(parts):
        return there[0].lora_a, torch.cat([each.lora_b for each in there])  # as Unsloth's: one A for both
    outputs = there[0].lora_b.shape[0]
    blocks = [deltas[part].lora_b if part in deltas else torch.zeros(outputs, 0) for part in parts]
    return torch.cat([each.lora_a for each in there]), torch.block_diag(*blocks)  # type: ignore[no-untyped-call]


def _pair(place: str, a: torch.Tensor, b: torch.Tensor) -> Tensors:
    both = {"A": a, "B": b}
    return {f"{PREFIX}{place}.lora_{which}.weight": each.float().contiguous() for which, each in both.items()}


def _suffix(name: str) -> str:
    match = SUFFIX.fullmatch(name)
    return (match[1] if match else name).removesuffix(".weight")


def _config(
    adapter: Adapter,
    base: BaseCheckpoint,
    linear: set[str],
    parameters: list[str],
    ranks: Mapping[str, int],
    form: Literal["peft", "unsloth"],
) -> dict[str, Any]:
    """PEFT's configuration: which layers and parameters, their ranks, and the base by where it is loaded from."""
    from peft import LoraConfig

    as_parameters = {name for name in linear if name.rpartition(".")[2] in REWRITTEN and form == "peft" and parameters}
    patterns = {name: ranks[name.rpartition(".")[2]] for name in parameters}
    changed = {name: rank for name, rank in patterns.items() if rank != adapter.rank}
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=_whole(adapter.alpha),
        lora_dropout=0.0,  # as it answers; PEFT refuses any other beside target_parameters
        target_modules=sorted(linear - as_parameters),
        target_parameters=sorted([*parameters, *(f"{name}.weight" for name in as_parameters)]) or None,
        rank_pattern=changed,
        alpha_pattern={name: _whole(adapter.scaling * rank) for name, rank in changed.items()},
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.checkpoint,
        revision=base.revision,
        inference_mode=True,
    )
    values: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=sorted))
    return values | {key: sorted(values[key]) for key in ("target_modules", "target_parameters") if values[key]}


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
