"""The job of the sampling's process, from the recipe, the split and perhaps the round before."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.rows_job import RowsJob
from ernie_pipeline.models.spec import asked_model_spec
from ernie_pipeline.recipe.sections import Recipe, Solutions


class SolutionsJob(RowsJob):
    """Solve the training problems of the folder `split` (train.parquet) by the model of `spec`, into the folder `out`.

    `earlier`: the folder of the round before, whose attempts count too; None in the first round. `rows`: where attempts
    are kept; None: nowhere. With a `part` that part's attempts are made and kept, and nothing else: see `sample_part`.
    """

    solutions: Solutions
    split: Path
    earlier: Path | None = None


def solutions_job(
    recipe: Recipe, base_version: str, quantized_bases: Path, adapter: Path | None, **given: Any
) -> SolutionsJob:
    """`recipe` needs the sections base_model, quantization and solutions, the key training.backend (resolved), and
    with an `adapter` (the artifact's folder, of the round before) lora; `given` are the job's other fields."""
    spec = asked_model_spec(recipe, base_version, adapter, quantized_bases)
    return SolutionsJob(spec=spec, solutions=recipe.solutions, **given)
