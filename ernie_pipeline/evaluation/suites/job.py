"""The job of the process that answers a suite, from the recipe, the suite's problems and perhaps an adapter."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.rows_job import RowsJob
from ernie_pipeline.models.spec import asked_model_spec
from ernie_pipeline.recipe.suites import SuiteAnswers


class SuiteJob(RowsJob):
    """Answer the suite `name`, whose problems are in the folder `problems`, by the model of `spec`, into `out`.

    `rows`: where its answers are kept; None: nowhere. With a `part` that part's answers are made and kept, and nothing
    else.
    """

    name: str
    answers: SuiteAnswers
    problems: Path


def suite_job(
    recipe: Any, name: str, base_version: str, quantized_bases: Path, adapter: Path | None, **given: Any
) -> SuiteJob:
    """`recipe` needs the sections base_model and quantization, the key training.backend (resolved), the suite's keys of
    `SuiteAnswers`, and with an `adapter` (the artifact's folder) lora; `given` are the job's other fields."""
    spec, suite = asked_model_spec(recipe, base_version, adapter, quantized_bases), recipe.suites[name]
    answers = SuiteAnswers(**{key: getattr(suite, key) for key in SuiteAnswers.model_fields})
    return SuiteJob(name=name, spec=spec, answers=answers, **given)
