"""An adapter on disk in PEFT's format, the same from every backend: one A and one B for each expert's projection.

So an adapter that one backend trained is one that another can load, and anything else that reads PEFT's files.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, TensorSpec, serialize_file
from torch import nn

from ernie_pipeline.models.copies import copy_to_cpu
from ernie_pipeline.utils.errors import PipelineError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
STACKED = re.compile(r"(.*\.experts)\.adapter\.lora_([AB])\.(\w+)")


def adapter_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Those of an adapted model's parameters that are its adapter's, by the model's names."""
    return {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}


def saved_tensors(adapter: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in the file, tensor) of `adapter_parameters`, or of copies; an expert's is a part of its layer's stack."""
    for name, parameter in adapter.items():
        stacked = STACKED.fullmatch(name)
        if stacked:
            experts, which, target = stacked.groups()
            for number, own in enumerate(parameter.detach()):
                yield f"{experts}.{number}.{target}.lora_{which}.weight", own
        else:
            yield name.replace(".default.", "."), parameter.detach()


def write_adapter(model: Any, folder: Path, base_name: str, revision: str | None) -> None:
    """`adapter_model.safetensors` and `adapter_config.json` of a `PeftModel` that may have `ExpertsAdapter`s."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(dict(saved_tensors(copy_to_cpu(adapter_parameters(model)))), folder / WEIGHTS)
    config = model.peft_config["default"]
    was, config.inference_mode = config.inference_mode, True
    config.save_pretrained(folder)
    config.inference_mode = was
    name_base(folder, base_name, revision)


def _write(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """What `safetensors.torch.save_file` writes, which takes 20 µs to describe a tensor: one of 10,760."""
    described = {
        name: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for name, tensor in tensors.items()
    }
    serialize_file(described, file, metadata={"format": "pt"})


def name_base(folder: Path, base_name: str, revision: str | None) -> None:
    """Write into the adapter's configuration what it belongs to, in an order that does not change: the name of the base
    and its resolved commit."""
    config_file = folder / CONFIG
    config = json.loads(config_file.read_text(encoding="utf-8"))
    for key in ("target_modules", "target_parameters"):
        if isinstance(config.get(key), list):  # it may be a regular expression
            config[key] = sorted(config[key])
    config |= {"base_model_name_or_path": base_name, "revision": revision}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_shape(folder: Path) -> dict[str, Any]:
    """rank, alpha, dropout and targets of a saved adapter. Raises `PipelineError`."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return {
            "rank": int(config["r"]),
            "alpha": config["lora_alpha"],
            "dropout": config["lora_dropout"],
            "targets": list(config["target_modules"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"adapter {folder} cannot be loaded ({CONFIG}: {error})") from error


def read_into(model: nn.Module, folder: Path) -> None:
    """Give the adapter of `model` the values of the file. Raises `PipelineError` unless each tensor found its place."""
    from safetensors.torch import load_file

    try:
        saved = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise PipelineError(f"adapter {folder} cannot be loaded ({error})") from error
    places = dict(saved_tensors(adapter_parameters(model)))
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (saved, places)]
    check_places(folder, *shapes)
    for name, tensor in saved.items():
        places[name].copy_(tensor)


def check_places(folder: Path, saved: dict[str, tuple[int, ...]], placed: dict[str, tuple[int, ...]]) -> None:
    """Raise `PipelineError` unless the tensors of the file are those of the model in memory, by name and shape."""
    if placed != saved:
        lost = sorted(set(saved.items()) ^ set(placed.items()))
        raise PipelineError(f"adapter {folder}: {len(lost)} tensors did not find their place, among them {lost[0][0]}")
