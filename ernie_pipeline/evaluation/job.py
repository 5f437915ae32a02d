"""The job of the evaluation's process, from the recipe, the split and perhaps an adapter."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import ModelSpec, asked_model_spec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.section import Section
from ernie_pipeline.recipe.sections import Evaluation, Recipe
from ernie_pipeline.store.row_cache import KeptRows
from ernie_pipeline.store.row_part import RowPart


class EvaluationJob(Section):
    """Measure the model of `spec` on the held-out rows of the folder `split` (eval.parquet) into the folder `out`.

    `rows`: where its answers are kept, those of earlier evaluations too; None: nowhere. With a `part` that part's rows
    are answered and kept, and nothing else: see `answer_part`.
    """

    spec: ModelSpec
    evaluation: Evaluation
    execution: ExecutionOverrides = ExecutionOverrides()
    limits: DeviceLimits = DeviceLimits()
    split: Path
    out: Path
    rows: KeptRows | None = None
    part: RowPart | None = None


def evaluation_job(
    recipe: Recipe, base_version: str, quantized_bases: Path, adapter: Path | None, **given: Any
) -> EvaluationJob:
    """`recipe` needs the sections base_model, quantization and evaluation, the key training.backend (resolved), and
    with an `adapter` (the artifact's folder) lora; `given` are the job's other fields."""
    spec = asked_model_spec(recipe, base_version, adapter, quantized_bases)
    return EvaluationJob(spec=spec, evaluation=recipe.evaluation, **given)
