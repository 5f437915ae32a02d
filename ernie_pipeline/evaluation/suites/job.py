"""The job of the process that answers a suite, from the recipe, the suite's problems and perhaps an adapter."""

from pathlib import Path
from typing import Any

from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import ModelSpec, asked_model_spec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.section import Section
from ernie_pipeline.recipe.suites import SuiteAnswers
from ernie_pipeline.store.row_cache import KeptRows
from ernie_pipeline.store.row_part import RowPart


class SuiteJob(Section):
    """Answer the suite `name`, whose problems are in the folder `problems`, by the model of `spec`, into `out`.

    `rows`: where its answers are kept; None: nowhere. With a `part` that part's answers are made and kept, and nothing
    else.
    """

    name: str
    spec: ModelSpec
    answers: SuiteAnswers
    execution: ExecutionOverrides = ExecutionOverrides()
    limits: DeviceLimits = DeviceLimits()
    problems: Path
    out: Path
    rows: KeptRows | None = None
    part: RowPart | None = None


def suite_job(
    recipe: Any, name: str, base_version: str, quantized_bases: Path, adapter: Path | None, **given: Any
) -> SuiteJob:
    """`recipe` needs the sections base_model and quantization, the key training.backend (resolved), the suite's keys of
    `SuiteAnswers`, and with an `adapter` (the artifact's folder) lora; `given` are the job's other fields."""
    spec, suite = asked_model_spec(recipe, base_version, adapter, quantized_bases), recipe.suites[name]
    answers = SuiteAnswers(**{key: getattr(suite, key) for key in SuiteAnswers.model_fields})
    return SuiteJob(name=name, spec=spec, answers=answers, **given)
