"""The job of the training's process, from the recipe and the split."""

from pathlib import Path
from typing import Any

from pydantic import model_validator

from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import ModelSpec, model_spec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.section import Section
from ernie_pipeline.recipe.sections import Grpo, Recipe, Training


class TrainingJob(Section):
    """Train an adapter of `spec` on the folder `split` (train.parquet and eval.parquet) into the folder `out`.

    `solutions`: the folder of what is trained on and measured by instead (train.parquet and validation.parquet), or
    None; of the split nothing is read then. `checkpoints`: a folder that outlives a killed run, to write them into and
    to go on from, or None for none.
    """

    spec: ModelSpec
    training: Training
    execution: ExecutionOverrides = ExecutionOverrides()
    limits: DeviceLimits = DeviceLimits()
    split: Path
    solutions: Path | None = None
    out: Path
    checkpoints: Path | None = None
    grpo: Grpo | None = None
    """What training.method = "grpo" takes. Its problems are the split's training rows; with `solutions`, those of them
    that were solved sometimes."""

    @model_validator(mode="after")
    def _as_the_method_has_it(self) -> "TrainingJob":
        if (self.training.method == "grpo") != (self.grpo is not None):
            raise ValueError('training.method = "grpo" goes with the section [grpo], and no other method does')
        return self

    @property
    def row_files(self) -> tuple[Path, Path]:
        """The rows to train on, and those whose loss is watched."""
        if self.solutions:
            return self.solutions / "train.parquet", self.solutions / "validation.parquet"
        return self.split / "train.parquet", self.split / "eval.parquet"


def training_job(recipe: Recipe, base_version: str, quantized_bases: Path, **given: Any) -> TrainingJob:
    """`recipe` needs the sections base_model, quantization, lora and training, its backend resolved, and grpo where
    that is the method; `given` are the job's other fields."""
    spec = model_spec(recipe, base_version, recipe.lora, quantized_bases=quantized_bases)
    grpo = recipe.grpo if recipe.training.method == "grpo" else None
    return TrainingJob(spec=spec, training=recipe.training, grpo=grpo, **given)
