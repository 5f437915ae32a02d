"""A finished adapter as what it adds to each weight of its base, whichever backend wrote the file.

Names are those of the hub's checkpoint: `model.layers.1.mlp.experts.3.gate_proj.weight`. Backends `peft` and `grouped`
write one A and one B for each of these; `unsloth` writes PEFT's `ParamWrapper` form, a pair for a layer's whole stack
of experts, gate and up in one.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.checkpoint.adapter_file import CONFIG, WEIGHTS
from ernie_pipeline.utils.errors import PipelineError, first_line

PREFIX = "base_model.model."
PAIR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
STACK = re.compile(r"(.+\.experts)(\.base_layer)?")
PLAIN = {
    "bias": "none",
    "lora_bias": False,
    "use_dora": False,
    "use_qalora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "use_bdlora": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}
"""What PEFT's configuration says of an adapter that is B A times alpha / r, and nothing else."""
GROUPED = "grouped_by_expert"
"""Unsloth's `lora_B_layout` of adapters from before September 2026; all others are PEFT's, the expert fastest."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""A and B."""


class Delta(NamedTuple):
    """What is added to a weight [out, in]: B A times `scaling`. Hu et al. 2021, section 4.1."""

    lora_a: torch.Tensor
    """[rank, in]"""
    lora_b: torch.Tensor
    """[out, rank]"""
    scaling: float

    def matrix(self) -> torch.Tensor:
        """The product [out, in] in fp32."""
        return (self.lora_b.float() @ self.lora_a.float()) * self.scaling

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight."""
        return self.lora_b.shape[0], self.lora_a.shape[1]


@dataclass(frozen=True)
class Adapter:
    """`deltas` by the name of the weight; `rank` and `alpha` as the configuration has them."""

    folder: Path
    deltas: Mapping[str, Delta]
    rank: int
    alpha: float
    base: str
    """The name of the base that the configuration gives."""

    @property
    def scaling(self) -> float:
        """alpha / rank, the same for all."""
        return self.alpha / self.rank

    def check_fits(self, shapes: Mapping[str, tuple[int, ...]], targets: Mapping[str, str], name: str) -> None:
        """Raise `PipelineError` unless it changes the weights in `targets` (by name, the LoRA target), and no others.

        `shapes`: of all the weights of the base, which is called `name`.
        """
        for weight, delta in self.deltas.items():
            if shapes.get(weight) != delta.shape:
                found = list(shapes[weight]) if weight in shapes else "nothing"
                raise PipelineError(
                    f"adapter {self.folder} does not belong to the base model {name}: it changes {weight} "
                    f"{list(delta.shape)}, and there the base has {found}; name the base that it was trained on"
                )
        if lost := sorted(targets.keys() - self.deltas.keys()):
            raise PipelineError(
                f"adapter {self.folder} is damaged: {len(lost)} weights of its targets have nothing in it, among them "
                f"{lost[0]}; build it again"
            )


def read_adapter(folder: Path) -> Adapter:
    """The adapter of that folder in fp32. Raises `PipelineError` for one that is damaged, or is no plain LoRA."""
    config, tensors = _read(folder)
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    deltas: dict[str, Delta] = {}
    for place, pair in _pairs(folder, tensors):
        if stack := STACK.fullmatch(place):
            deltas |= _of_stack(folder, config, stack[1], bool(stack[2]), pair, scaling)
        else:
            deltas[f"{place}.weight"] = Delta(*pair, scaling)
    if not deltas:
        raise PipelineError(f"adapter {folder} is damaged: {WEIGHTS} holds no LoRA; build it again")
    for name, delta in deltas.items():
        if delta.lora_a.shape[0] != delta.lora_b.shape[1]:
            raise PipelineError(f"adapter {folder} is damaged: A and B of {name} have different ranks; build it again")
    return Adapter(folder, deltas, rank, scaling * rank, str(config.get("base_model_name_or_path")))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise PipelineError(f"adapter {folder} cannot be read ({first_line(error)}); build it again") from error
    for key, plain in PLAIN.items():
        if config.get(key, plain) != plain and config.get(key):
            raise PipelineError(
                f"adapter {folder} is no plain LoRA: {CONFIG} says {key} = {config[key]!r}, which no export of this "
                "package holds; export one that this package trained"
            )
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise PipelineError(f"adapter {folder} is damaged: {broken[0]} holds values that are no numbers")
    return config, tensors


def _pairs(
    folder: Path, tensors: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """(place, A and B) in the order of the file."""
    places: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = PAIR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise PipelineError(f"adapter {folder} holds {name} {list(tensor.shape)}, which is no LoRA's A or B")
        places.setdefault(match[1], {})[match[2]] = tensor
    for place, pair in places.items():
        if len(pair) != 2:
            raise PipelineError(f"adapter {folder} is damaged: {place} lacks its A or its B; build it again")
        yield place, (pair["A"], pair["B"])


def _of_stack(
    folder: Path,
    config: Mapping[str, Any],
    experts: str,
    inner: bool,
    pair: Pair,
    scaling: float,
) -> dict[str, Delta]:
    """The deltas of each expert, from PEFT's form of a stack: A [experts x rank, in], B [out, rank x experts]."""
    named = {str(name).rpartition(".")[2] for name in config.get("target_parameters") or ()}
    both = named >= set(FUSED_PROJECTIONS)
    fused = "gate_up_proj" if inner or (not both and "gate_up_proj" in named) else "down_proj"
    rank, (a, b) = int(config["r"]), pair
    count, rest = divmod(a.shape[0], rank)
    if rest or b.shape[1] != a.shape[0] or fused not in named:
        raise PipelineError(f"adapter {folder} holds a stack of experts, {experts}, in a form that is not known")
    a = a.view(count, rank, -1)
    grouped = config.get("lora_B_layout") == GROUPED
    b = b.view(-1, count, rank).transpose(0, 1) if grouped else b.view(-1, rank, count).permute(2, 0, 1)
    parts = FUSED_PROJECTIONS[fused]
    return {
        f"{experts}.{number}.{target}.weight": Delta(a[number], own, scaling)
        for number in range(count)
        for target, own in zip(parts, b[number].chunk(len(parts)), strict=True)
    }
