"""What the process that reads a suite is told, and what it does: like the split's, for a tokenizer without torch."""

from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.section import Section
from ernie_pipeline.recipe.suites import SuiteColumns, SuiteSource
from ernie_pipeline.utils.reporter import Reporter


class SuiteProblemsJob(Section):
    """Read the suite `name` at its set's `version` into the folder `out`.

    `source` and `columns` are the recipe's; `checkpoint` and `revision` as for `load_tokenizer`.
    """

    name: str
    source: SuiteSource
    columns: SuiteColumns
    version: str
    checkpoint: str
    revision: str | None
    out: Path


def suite_problems_job(
    recipe: Any, name: str, version: str, base: tuple[str, str | None], out: Path
) -> SuiteProblemsJob:
    """`recipe` needs the suite's source and columns; `base`: checkpoint and revision."""
    suite = recipe.suites[name]
    return SuiteProblemsJob(
        name=name,
        source=suite.source,
        columns=SuiteColumns(**{key: getattr(suite, key) for key in SuiteColumns.model_fields}),
        version=version,
        checkpoint=base[0],
        revision=base[1],
        out=out,
    )


def read(job: SuiteProblemsJob, report: Reporter) -> None:
    """Read the suite that `job` describes; errors as `read_suite`, `load_tokenizer` and `write_problems`."""
    from ernie_pipeline.data.suites.problems import write_problems
    from ernie_pipeline.data.suites.read import read_suite
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    found = read_suite(job.name, job.source, job.columns, job.version)
    report(f"suite {job.name}: {found.rows.height} rows, {len(found.bad)} left out", {})
    write_problems(found, job.columns, load_tokenizer(job.checkpoint, job.revision), job.out)
