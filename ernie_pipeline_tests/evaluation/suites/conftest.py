"""A suite of the demo's own kinds of problem, and jobs that answer it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.suites.problems import write_problems
from ernie_pipeline.data.suites.read import ROWS, SuiteRows
from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.evaluation.suites.job import SuiteJob
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.recipe.suites import SuiteAnswers, SuiteColumns

WriteSuite = Callable[..., Path]
MakeSuiteJob = Callable[..., SuiteJob]


@pytest.fixture(scope="session")
def write_suite(tmp_path_factory: pytest.TempPathFactory) -> WriteSuite:
    """The folder of an artifact with so many problems, of another seed than the demo's rows."""
    made: dict[int, Path] = {}

    def write(count: int) -> Path:
        if count not in made:
            made[count] = tmp_path_factory.mktemp("problems")
            rows = [
                (number, row["question"], row["expected_answer"], str(1 + number % 2), None)
                for number, row in enumerate(demo_rows(count, seed=11), start=1)
            ]
            table = pl.DataFrame(rows, schema=ROWS, orient="row")
            write_problems(SuiteRows(table, []), SuiteColumns(), load_tokenizer(str(BASE)), made[count])
        return made[count]

    return write


@pytest.fixture
def make_suite_job(make_job: Callable[..., Any], write_suite: WriteSuite) -> MakeSuiteJob:
    """A `SuiteJob` of 8 problems by the demo model; `answers` are changes of how it answers."""

    def make(name: str = "out", count: int = 8, answers: dict[str, Any] | None = None, **fields: Any) -> SuiteJob:
        job = make_job(name)
        settings = SuiteAnswers(**{"max_new_tokens": 12, "samples": 2, **(answers or {})})
        return SuiteJob(
            name="mine", spec=job.spec, answers=settings, problems=write_suite(count), out=job.out, **fields
        )

    return make
