"""Which model a process loads, as what crosses a process border: frozen, typed, validated on both sides."""

from pathlib import Path
from typing import Literal

from ernie_pipeline.models.checkpoint.version import pinned_checkpoint
from ernie_pipeline.recipe.section import Section
from ernie_pipeline.recipe.sections import BaseModelRef, Lora, Quantization, Recipe


class BaseCheckpoint(Section):
    """A base model at a version: `checkpoint` is a folder or hub id, `revision` a hub commit or None."""

    name: str
    checkpoint: str
    revision: str | None = None
    version: str = ""


class ModelSpec(Section):
    """A base model in 4 bits, by which backend, and the folder of its adapter or None for the base model alone.

    `lora`: what of it has, or is to get, an adapter.
    """

    backend: Literal["peft", "grouped", "unsloth"]
    base: BaseCheckpoint
    quantization: Quantization
    lora: Lora = Lora()
    adapter: Path | None = None
    quantized_bases: Path | None = None
    """Where backends that quantize a base once keep it; None: where the environment says, or the user's cache."""


def base_checkpoint(base: BaseModelRef, version: str) -> BaseCheckpoint:
    """The recipe's base model at the version that was resolved."""
    checkpoint, revision = pinned_checkpoint(base.name, version)
    return BaseCheckpoint(name=base.name, checkpoint=checkpoint, revision=revision, version=version)


def model_spec(
    recipe: Recipe, version: str, lora: Lora, adapter: Path | None = None, quantized_bases: Path | None = None
) -> ModelSpec:
    """The recipe's base model at the `version` that was resolved, by its backend, resolved too."""
    return ModelSpec(
        backend=recipe.training.backend,
        base=base_checkpoint(recipe.base_model, version),
        quantization=recipe.quantization,
        lora=lora,
        adapter=adapter,
        quantized_bases=quantized_bases,
    )


def asked_model_spec(recipe: Recipe, version: str, adapter: Path | None, quantized_bases: Path) -> ModelSpec:
    """The model that answers: the base, or with an `adapter` (its artifact's folder) that, as recipe.lora has it."""
    lora = recipe.lora if adapter else Lora()  # of a base model all targets are checked, whatever is trained
    return model_spec(recipe, version, lora, adapter / "adapter" if adapter else None, quantized_bases)
