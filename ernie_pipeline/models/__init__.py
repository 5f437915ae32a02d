"""How a 4-bit base model and its LoRA adapter are held in memory: loaded, checked, saved, reloaded, asked.

Training, evaluation and the registered MLflow model go through here alike, so that what was trained is what is
measured and what is served. An engine is a module `<name>_engine` with the functions of `peft_engine`; its name in
`ENGINES` and its place in `engine_module` are where another one is added. The rooms within this one:

    checkpoint, job, device, chat     which model, where, and how messages become its text
    peft_engine, experts, quantize    every expert a 4-bit layer of its own
    unsloth_engine, packed, pack      a base quantised once, by Unsloth, and kept
    grouped/                          what that engine computes in
    generation/, weights              answers
    audit, adapter_file               what is 4-bit and trainable; the adapter on disk, the same from both
"""

from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ernie_pipeline.utils.errors import PipelineError

ENGINES = ("peft", "unsloth")
UNSLOTHS = {"type": "nf4", "double": True, "compute_dtype": "bfloat16"}
"""The quantisation that Unsloth makes, and no other."""


def choose_engine(wanted: str, quantization: Mapping[str, Any] = UNSLOTHS) -> str:
    """The name of the engine that `wanted` (the recipe's training.engine) stands for in this process.

    "auto" is unsloth where a CUDA device and the package are and `quantization` (the recipe's section) is what it
    makes, else peft: like the device it says where and how fast, so it is asked where the model is loaded, not where
    the recipe is read. Raises `PipelineError` where unsloth is asked for and cannot be had.
    """
    if wanted not in ("auto", "unsloth"):
        return wanted
    missing = _what_unsloth_lacks(quantization)
    if missing and wanted == "unsloth":
        raise PipelineError(f'training.engine = "unsloth" {missing}; set it to "auto" or "peft"')
    return "peft" if missing else "unsloth"


def engine_module(wanted: str, quantization: Mapping[str, Any] = UNSLOTHS) -> ModuleType:
    """The module of the engine that `wanted` stands for, see `choose_engine`."""
    if choose_engine(wanted, quantization) == "unsloth":
        from ernie_pipeline.models.grouped import (
            backend as unsloth_engine,  # written out: the code of a stage is found by its imports
        )

        return unsloth_engine
    from ernie_pipeline.models.peft import backend as peft_engine

    return peft_engine


def engine_name(engine: ModuleType) -> str:
    """The name of the engine whose module it is."""
    return {"peft": "peft", "grouped": "unsloth"}[engine.__name__.split(".")[-2]]


def _what_unsloth_lacks(quantization: Mapping[str, Any]) -> str:
    """What the engine unsloth needs and this machine or recipe has not, in a clause, or ""."""
    import torch

    if not torch.cuda.is_available():
        return "needs a CUDA device, and this machine shows none"
    if find_spec("unsloth") is None:
        return 'needs the package unsloth, which is not installed here: pip install "ernie_pipeline[gpu]"'
    for name, value in UNSLOTHS.items():
        if quantization[name] != value:
            return f"makes quantization.{name} = {value!r}, and the recipe asks for {quantization[name]!r}"
    return ""
