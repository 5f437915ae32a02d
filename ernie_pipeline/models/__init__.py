"""How a 4-bit base model and its LoRA adapter are held in memory: loaded, checked, saved, reloaded, asked.

Training, evaluation and the registered MLflow model go through `backend.py` alike, so that what was trained is what is
measured and what is served. Another backend is added in `backend_named` and `resolve_backend`.

    backend, spec, documents     the seam: what all others see
    checkpoint/                  which model, its configuration and tokenizer; the adapter's file
    peft/                        every expert a 4-bit layer of its own; anywhere
    grouped/                     a layer's experts in one product; ERNIE-4.5 on CUDA
    unsloth/                     Unsloth's own model, LoRA and kernels; CUDA
    micro_batches/               how a step's documents lie in memory
    generation/, weights         answers
    audit, quantize              what is 4-bit and trainable
"""

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from ernie_pipeline.models.backend import Backend, BackendName

GROUPED_MODEL_TYPE = "ernie4_5_moe"

# on some CPUs it warns in every process that a kernel of the hub's, which is not needed, is not installed
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def backend_named(name: str) -> "Backend":
    """The backend; its imports are written out, as a stage's code is found by them."""
    if name == "grouped":
        from ernie_pipeline.models.grouped.backend import GroupedBackend

        return GroupedBackend()
    if name == "unsloth":
        from ernie_pipeline.models.unsloth.backend import UnslothBackend

        return UnslothBackend()
    from ernie_pipeline.models.peft.backend import PeftBackend

    return PeftBackend()


def resolve_backend(
    wanted: str, quantization: Mapping[str, Any], dropout: float, *, cuda: bool, model_type: Callable[[], str]
) -> "BackendName":
    """What the recipe's training.backend stands for on a machine with or without a CUDA device.

    "auto" is grouped where device, architecture, quantization and LoRA's dropout allow, else unsloth where it is
    installed, else peft. `model_type` is asked only where it matters. Raises `PipelineError` where a backend is asked
    for by name and cannot be had.
    """
    lacks: dict[BackendName, str] = {}
    if wanted in ("auto", "grouped"):
        lacks["grouped"] = _what_grouped_lacks(quantization, dropout, cuda, model_type)
    if wanted in ("auto", "unsloth"):
        lacks["unsloth"] = _what_unsloth_lacks(quantization, cuda)
    for name, missing in lacks.items():
        if wanted == name and missing:
            raise PipelineError(f'training.backend = "{name}" {missing}; set it to "auto" or "peft"')
    return next((name for name, missing in lacks.items() if not missing), "peft")


def _what_grouped_lacks(
    quantization: Mapping[str, Any], dropout: float, cuda: bool, model_type: Callable[[], str]
) -> str:
    if not cuda:
        return "needs a CUDA device, and this machine shows none"
    if quantization["compute_dtype"] != "bfloat16":
        return f"computes in bfloat16, and quantization.compute_dtype is {quantization['compute_dtype']!r}"
    if dropout:
        return f"has no dropout, and lora.dropout is {dropout:g}"
    found = model_type()
    return "" if found == GROUPED_MODEL_TYPE else f"is for models of the type {GROUPED_MODEL_TYPE}, not {found!r}"


def _what_unsloth_lacks(quantization: Mapping[str, Any], cuda: bool) -> str:
    if not cuda:
        return "needs a CUDA device, and this machine shows none"
    if find_spec("unsloth") is None:
        return 'needs the package unsloth, which is not installed here: pip install "ernie_pipeline[gpu]"'
    for name, value in {"type": "nf4", "double": True, "compute_dtype": "bfloat16"}.items():
        if quantization[name] != value:
            return f"makes quantization.{name} = {value!r}, and the recipe asks for {quantization[name]!r}"
    return ""
