"""The job that `evaluate` takes, from the recipe, the split and perhaps an adapter."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.spec import base_job
from ernie_pipeline.recipe.sections import Lora


def evaluation_job(recipe: Any, base_version: str, split: Path, adapter: Path | None, out: Path) -> dict[str, Any]:
    """`recipe` needs the sections base_model, quantization and evaluation, the key training.engine, and with an
    `adapter` (the artifact's folder) lora; see `evaluate` for the job's keys.
    """
    lora = recipe.lora if adapter else Lora()  # for a base model all the targets are checked, whatever is trained
    return {
        **base_job(recipe.training.engine, recipe.base_model, base_version, recipe.quantization),
        "lora": lora.model_dump(mode="json"),
        "adapter": str(adapter / "adapter") if adapter else None,
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "split": str(split),
        "out": str(out),
    }
