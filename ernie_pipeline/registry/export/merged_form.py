"""One checkpoint of base and adapter in bf16, with the hub's names, as `AutoModelForCausalLM` and vLLM load it.

Written as it is made: no more of it is in memory than a shard, and the stack of experts at hand in fp32.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.registry.export.adapter import Adapter
from ernie_pipeline.registry.export.base import INDEX, ONE_FILE, BaseWeights
from ernie_pipeline.registry.export.material import Material
from ernie_pipeline.registry.export.merge import Onto, Plan, merged
from ernie_pipeline.utils.errors import PipelineError, first_line

EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
SHARD_BYTES = 5 * 10**9
NOT_MERGED = ("quantization_config", "auto_map", "num_nextn_predict_layers")
"""Of the base's config.json: it is not quantized, runs no code of its own, and has no heads for further tokens."""


def write_merged(
    plan: Plan,
    base: BaseWeights,
    adapter: Adapter,
    spec: ModelSpec,
    onto: Onto,
    folder: Path,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write weights, configuration, tokenizer and chat template into `folder`."""
    shards = _shards(plan, base, shard_bytes)
    names = [_file(number, len(shards)) for number in range(len(shards))]
    file_of = {weight: name for name, weights in zip(names, shards, strict=True) for weight in weights}
    total = 0
    for name, tensors in _gathered(rounded(plan, base, adapter, spec, onto), file_of):
        _save(tensors, folder / name)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(shards) > 1:
        _write(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(file_of.items()))})
    own_output = {EMBEDDINGS, OUTPUT} <= base.shapes.keys() and not torch.equal(
        base.read(EMBEDDINGS), base.read(OUTPUT)
    )
    # transformers takes an output layer that differs from the embeddings, whatever this says; others go by it
    write_configuration(spec.base, folder, {"tie_word_embeddings": False} if own_output else {})


def rounded(
    plan: Plan, base: BaseWeights, adapter: Adapter, spec: ModelSpec, onto: Onto
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights in bf16; what transformers keeps in fp32, the routers, in the dtype of the base's checkpoint."""
    for name, value in merged(plan, base, adapter, spec, onto):
        yield name, value.contiguous() if _stays(plan, name, value) else value.to(torch.bfloat16).contiguous()


def check_weights(material: Material, onto: Onto, folder: Path) -> None:
    """Raise `PipelineError` unless each weight of the folder, read back, is base plus adapter, bit for bit."""
    spec = material.source.spec.model_copy(update={"base": BaseCheckpoint(name="merged", checkpoint=str(folder))})
    with BaseWeights(spec.base) as found:
        strange = set(found.shapes)
        for name, value in rounded(material.plan, material.base, material.adapter, material.source.spec, onto):
            if name not in found.shapes or not torch.equal(found.read(name), value):
                raise PipelineError(f"the merged model's {name}, read back, is not base plus adapter")
            strange.discard(name)
    if strange:
        raise PipelineError(f"the merged model, read back, has weights that the base lacks, such as {min(strange)}")


def _stays(plan: Plan, name: str, value: torch.Tensor) -> bool:
    in_model = name.replace(".mlp.moe_statics.", ".mlp.gate.moe_statics.")
    return not value.is_floating_point() or bool(plan.fp32.search(in_model))


def _shards(plan: Plan, base: BaseWeights, limit: int) -> list[list[str]]:
    """The names of each shard's weights, in the order in which they are made."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in (*plan.others, *(weight for unit in plan.units for weight in unit.weights)):
        own = math.prod(base.shapes[name]) * (4 if plan.fp32.search(name) else 2)
        if size + own > limit and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += own
    return shards


def _file(number: int, of: int) -> str:
    return ONE_FILE if of == 1 else f"model-{number + 1:05}-of-{of:05}.safetensors"


def _gathered(
    tensors: Iterator[tuple[str, torch.Tensor]], file_of: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """(file, its tensors); they come in the order of the files."""
    name, held = "", dict[str, torch.Tensor]()
    for weight, tensor in tensors:
        if held and file_of[weight] != name:
            yield name, held
            held = {}
        name = file_of[weight]
        held[weight] = tensor
    yield name, held


def _save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, file, metadata={"format": "pt"})


def write_configuration(base: BaseCheckpoint, folder: Path, changes: Mapping[str, Any]) -> None:
    """config.json, generation_config.json, and the tokenizer with its chat template, of the base's checkpoint.

    `changes`: what config.json says otherwise.
    """
    from transformers import AutoTokenizer, GenerationConfig

    config = {key: value for key, value in raw_config(base).items() if key not in NOT_MERGED}
    dtype = "dtype" if "dtype" in config else "torch_dtype"
    _write(folder / "config.json", {**config, dtype: "bfloat16", **changes})
    with suppress(OSError):  # a base that has none
        GenerationConfig.from_pretrained(base.checkpoint, revision=base.revision).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base.checkpoint, revision=base.revision, trust_remote_code=False).save_pretrained(
        folder
    )


def raw_config(base: BaseCheckpoint) -> dict[str, Any]:
    """The base's config.json as it stands there. Raises `PipelineError`."""
    try:
        file = Path(base.checkpoint) / "config.json"
        if base.revision is not None:
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(base.checkpoint, "config.json", revision=base.revision))
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"base model {base.name}: its config.json cannot be read ({first_line(error)})") from error
    return values


def _write(file: Path, values: Mapping[str, Any] | Sequence[Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
