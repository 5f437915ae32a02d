"""A 4-bit base model on disk: 12 GB to read instead of 43, quantised once by Unsloth's loader in a process of its own.

Unsloth patches torch, transformers, PEFT and TRL when it is imported, which takes 25 s, and quantises a 21 B model in
18; here that happens once for a base model and its quantisation. What it leaves is kept as safetensors in the names and
quantisation states of bitsandbytes, sealed with the hash of each file, and read by everything that uses the model.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.products import PARTS
from ernie_pipeline.models.quantize import COMPUTE_DTYPES, empty_linear4bit
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.quantized_base import MANIFEST, PLACE, MadeOf, damage, key_of, made_of
from ernie_pipeline.store.sealed import discard, list_files, write_sealed
from ernie_pipeline.store.user_cache import users_cache
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence, is_disk_full

REST = "rest"
PACKAGES = Path(__file__).parents[3]
"""Where this package is: beside a registered model, the process that packs would not find it by itself."""

Tensors = dict[str, torch.Tensor]


def packed_base(base: Mapping[str, Any], quantization: Mapping[str, Any], bases: str | None) -> Path:
    """The folder of the packed `base` (its name, checkpoint, revision and version), made first where it is not.

    `bases` is the folder that holds them, by default what the environment names, or one in the user's cache folder. It
    is whole or not there; one that was altered is made anew; of several processes one makes it and the others wait.
    """
    made = made_of(base["version"], quantization)
    folder = bases or os.environ.get(PLACE)
    place = (Path(folder) if folder else users_cache() / "bases") / key_of(made)
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if damage(place, remembered_sha256):
            for left in (place, *place.parent.glob(f".{place.name}.*")):  # the latter by killed packings
                discard(left)
            _pack_apart(base, quantization, place, made)
    return place


def _pack_apart(base: Mapping[str, Any], quantization: Mapping[str, Any], place: Path, made: MadeOf) -> None:
    """Run `pack.py` in a process of its own, so that nothing that Unsloth patches is patched in this one."""
    aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.mkdir()
        job = aside / "job.json"
        job.write_text(json.dumps({"base": dict(base), "quantization": dict(quantization), "out": str(aside)}))
        command = [sys.executable, "-m", "ernie_pipeline.models.grouped.pack", str(job)]
        ended = subprocess.run(command, env=_surroundings(aside), stdin=subprocess.DEVNULL)
        problem = aside / "problem.txt"
        if ended.returncode:
            told = problem.read_text() if problem.is_file() else f"the process ended with status {ended.returncode}"
            raise PipelineError(f"base model {base['name']} could not be loaded in 4 bits by Unsloth: {told}")
        job.unlink()
        shutil.rmtree(aside / "compiled", ignore_errors=True)
        write_sealed(aside / MANIFEST, {"made_of": made, "files": list_files(aside)})
        aside.rename(place)
    except OSError as error:
        if is_disk_full(error):
            raise PipelineError(f"the packed base model was not kept: {disk_full_sentence(str(place))}") from error
        raise
    finally:
        discard(aside)


def _surroundings(folder: Path) -> dict[str, str]:
    """Unsloth without calls home, without compiling what it will not run, and as one process of one."""
    distributed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in distributed}
    local = torch.cuda.current_device() if torch.cuda.is_available() else 0
    shown = kept.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {
        **{name: value for name, value in kept.items() if not name.startswith(("TORCHELASTIC_", "DAGSTER_PIPES"))},
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGES), kept.get("PYTHONPATH")))),
        "CUDA_VISIBLE_DEVICES": shown[local] if shown != [""] else str(local),
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_DISABLE": "1",
        "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def write_packed(model: nn.Module, folder: Path) -> None:
    """Every parameter of a model that bitsandbytes has quantised, a file a layer and one for the rest."""
    from safetensors.torch import save_file

    files: dict[str, Tensors] = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        file = f"layer-{int(parts[parts.index('layers') + 1]):03}" if "layers" in parts else REST
        tensors = files.setdefault(file, {})
        tensors[name] = parameter.detach()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors |= {f"{name}.{part}": value for part, value in state.as_dict(packed=True).items()}

    def write(file: str) -> None:
        on_cpu = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in files[file].items()}
        save_file(on_cpu, folder / f"{file}.safetensors")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, files))


def read_packed(folder: Path, config: Any, quantization: Mapping[str, Any], device: str) -> Any:
    """The frozen model on `device`, with `GroupedExperts` and `Linear4bit` layers.

    `config` is the checkpoint's own. Raises `PipelineError` when a parameter of it has no tensor in the folder.
    """
    from transformers import AutoModelForCausalLM

    if device == "cuda":  # safetensors, and the threads that read, would take the first one
        device = f"cuda:{torch.cuda.current_device()}"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=COMPUTE_DTYPES[quantization["compute_dtype"]])
    tensors = _read_tensors(folder, device)
    for parent_name, parent in list(model.named_modules()):
        prefix = f"{parent_name}." if parent_name else ""
        if set(PARTS) <= set(parent._parameters):
            stacks = [_quantised(tensors, prefix + fused, device, parent, folder) for fused in PARTS]
            _replace(model, parent_name, GroupedExperts(*stacks))
        elif isinstance(parent, nn.Linear) and _state(tensors, f"{prefix}weight"):
            linear = empty_linear4bit(parent, quantization)
            linear.weight = _quantised(tensors, f"{prefix}weight", device, linear, folder)
            if parent.bias is not None:
                linear.bias = nn.Parameter(tensors.pop(f"{prefix}bias"), requires_grad=False)
            _replace(model, parent_name, linear)
    _place(model, tensors)
    # its buffers follow from the configuration and are in no checkpoint
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config).to(device)
    model.tie_weights()
    lost = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lost:
        raise _lacking(folder, lost)
    return model.requires_grad_(False).eval()


def _read_tensors(folder: Path, device: str) -> Tensors:
    from safetensors.torch import load_file

    with ThreadPoolExecutor(8) as threads:
        files = threads.map(lambda file: load_file(file, device=device), sorted(folder.glob("*.safetensors")))
        return {name: tensor for file in files for name, tensor in file.items()}


def _state(tensors: Tensors, name: str) -> list[str]:
    """The names of a parameter's quantisation state."""
    return [key for key in tensors if key.startswith(f"{name}.")]


def _quantised(tensors: Tensors, name: str, device: str, module: nn.Module, folder: Path) -> Any:
    """The `Params4bit` of that name, taken out of `tensors` with its quantisation state."""
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
    return PipelineError(f"packed base model {folder} lacks {len(lost)} parameters, among them {lost[0]}; remove it")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def _place(model: nn.Module, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        model.get_submodule(owner)._parameters[last] = nn.Parameter(tensor, requires_grad=False)
