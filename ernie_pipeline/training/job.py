"""The job that `train` takes, from the recipe and the split."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.spec import base_job


def training_job(recipe: Any, base_version: str, split: Path, out: Path, checkpoints: Path | None) -> dict[str, Any]:
    """`recipe` needs the sections base_model, quantization, lora and training; see `train` for the job's keys.

    `checkpoints`: a folder to write them into and to go on from, or None for none.
    """
    return {
        **base_job(recipe.training.engine, recipe.base_model, base_version, recipe.quantization),
        "lora": recipe.lora.model_dump(mode="json"),
        "training": recipe.training.model_dump(mode="json"),
        "split": str(split),
        "out": str(out),
        "checkpoints": str(checkpoints) if checkpoints else None,
    }
