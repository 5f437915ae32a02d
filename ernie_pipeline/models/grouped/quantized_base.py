"""A 4-bit base model on disk: 12 GB to read instead of 43, quantized once for all that use it.

It is kept as safetensors in the names and quantization states of bitsandbytes, sealed with the hash of each file.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.quantize_checkpoint import OUTPUT, complete, model_skeleton, quantize_checkpoint
from ernie_pipeline.models.grouped.read_ahead import what_was_read
from ernie_pipeline.models.grouped.read_tensors import Tensors, read_tensors
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.models.quantize import empty_linear4bit
from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.lock import open_lock
from ernie_pipeline.store.quantized_base import MANIFEST, damage, made_of, place_of
from ernie_pipeline.store.sealed import write_sealed_folder
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.timeline import part

Meanwhile = Callable[[], Callable[[], None]]
"""Prepares, and returns what there is to do in a thread of its own in the seconds that quantizing takes."""


def quantized_base(
    base: BaseCheckpoint,
    config: Any,
    quantization: Mapping[str, Any],
    bases: Path | None,
    device: str,
    meanwhile: Meanwhile | None = None,
) -> Path:
    """The folder of the quantized `base`, made first, on `device`, where it is not.

    `bases` is the folder that holds them, see `place_of`. It is whole or not there; one that was altered is made anew;
    of several processes one makes it and the others wait. `meanwhile` is called only where it is made.
    """
    made = made_of(base.version, quantization)
    place = place_of(made, bases)
    place.parent.parent.mkdir(parents=True, exist_ok=True)

    def fill(temporary: Path) -> None:
        quantize_checkpoint(base.checkpoint, base.revision, config, quantization, temporary, device)

    with open_lock(Path(f"{place}.lock"), below=place.parent.parent):
        with part("check the quantized base"):
            damaged = damage(place, remembered_sha256)
        if damaged:
            what = "the quantized base model was not kept"
            with ThreadPoolExecutor(1) as pool:
                besides = pool.submit(meanwhile()) if meanwhile else None
                with part("quantize the base model"):
                    write_sealed_folder(place, MANIFEST, fill, lambda files: {"made_of": made}, what=what)
            if besides:
                besides.result()
                free_memory()
    return place


def load_quantized(
    base: BaseCheckpoint,
    config: Any,
    quantization: Mapping[str, Any],
    bases: Path | None,
    device: str,
    meanwhile: Meanwhile | None = None,
) -> Any:
    """The frozen 4-bit model of `quantized_base`, or of what of it was read ahead, see `read_ahead`."""
    if device == "cuda":  # the threads that read would take the first one
        device = f"cuda:{torch.cuda.current_device()}"
    place = place_of(made_of(base.version, quantization), bases)
    tensors = what_was_read(place, device)
    if tensors is None:
        place = quantized_base(base, config, quantization, bases, device, meanwhile)
    return read_quantized(place, config, quantization, device, tensors)


def read_quantized(
    folder: Path, config: Any, quantization: Mapping[str, Any], device: str, tensors: Tensors | None = None
) -> Any:
    """The frozen model on `device`, an indexed one or "cpu", with `GroupedExperts` and `Linear4bit` layers.

    `config` is the checkpoint's own; `tensors` what was read of the folder already. Raises `PipelineError` when a
    parameter of it has no tensor in the folder.
    """
    if tensors is None:
        with part("read the quantized base"):
            tensors = read_tensors(sorted(folder.glob("*.safetensors")), device)
    with part("skeleton of the model"):
        model = model_skeleton(config, quantization, has_own_output=OUTPUT in tensors)
    for parent_name, parent in list(model.named_modules()):
        prefix = f"{parent_name}." if parent_name else ""
        if set(FUSED_PROJECTIONS) <= set(parent._parameters):
            stacks = [_quantized(tensors, prefix + fused, device, parent, folder) for fused in FUSED_PROJECTIONS]
            _replace(model, parent_name, GroupedExperts(*stacks))
        elif isinstance(parent, nn.Linear) and _state(tensors, f"{prefix}weight"):
            linear = empty_linear4bit(parent, quantization)
            linear.weight = _quantized(tensors, f"{prefix}weight", device, linear, folder)
            if parent.bias is not None:
                linear.bias = nn.Parameter(tensors.pop(f"{prefix}bias"), requires_grad=False)
            _replace(model, parent_name, linear)
    _place(model, tensors)
    complete(model, device)
    lost = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lost:
        raise _lacking(folder, lost)
    return model.requires_grad_(False).eval()


def _state(tensors: Tensors, name: str) -> list[str]:
    """The names of a parameter's quantization state."""
    return [key for key in tensors if key.startswith(f"{name}.")]


def _quantized(tensors: Tensors, name: str, device: str, module: nn.Module, folder: Path) -> Any:
    """The `Params4bit` of that name, taken out of `tensors` with its quantization state."""
    from bitsandbytes.nn import Params4bit

    state = {key: tensors.pop(key) for key in _state(tensors, name)}
    try:
        return Params4bit.from_prequantized(
            data=tensors.pop(name),
            quantized_stats={key.removeprefix(f"{name}."): value for key, value in state.items()},
            device=device,
            module=module,
        )
    except (KeyError, ValueError) as error:  # the weight, a part of its state, or all of it
        raise _lacking(folder, [name]) from error


def _lacking(folder: Path, lost: list[str]) -> PipelineError:
    return PipelineError(f"quantized base model {folder} lacks {len(lost)} parameters, among them {lost[0]}; remove it")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def _place(model: nn.Module, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        model.get_submodule(owner)._parameters[last] = nn.Parameter(tensor, requires_grad=False)
