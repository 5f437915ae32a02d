"""The job of the evaluation's process, from the recipe, the split and perhaps an adapter."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.rows_job import RowsJob
from ernie_pipeline.models.spec import asked_model_spec
from ernie_pipeline.recipe.sections import Evaluation, Recipe


class EvaluationJob(RowsJob):
    """Measure the model of `spec` on the held-out rows of the folder `split` (eval.parquet) into the folder `out`.

    `rows`: where its answers are kept, those of earlier evaluations too; None: nowhere. With a `part` that part's rows
    are answered and kept, and nothing else: see `answer_part`.
    """

    evaluation: Evaluation
    split: Path


def evaluation_job(
    recipe: Recipe, base_version: str, quantized_bases: Path, adapter: Path | None, **given: Any
) -> EvaluationJob:
    """`recipe` needs the sections base_model, quantization and evaluation, the key training.backend (resolved), and
    with an `adapter` (the artifact's folder) lora; `given` are the job's other fields."""
    spec = asked_model_spec(recipe, base_version, adapter, quantized_bases)
    return EvaluationJob(spec=spec, evaluation=recipe.evaluation, **given)
