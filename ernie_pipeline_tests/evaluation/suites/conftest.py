"""A suite of the demo's own kinds of problem, and jobs that answer it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.suites.problems import write_problems
from ernie_pipeline.data.suites.read import ROWS, SuiteRows
from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.evaluation.suites.answer import answer
from ernie_pipeline.evaluation.suites.job import SuiteJob
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.recipe.suites import SuiteAnswers, SuiteColumns
from ernie_pipeline.store.row_cache import KeptRows

WriteSuite = Callable[..., Path]
MakeSuiteJob = Callable[..., SuiteJob]
Answered = tuple[SuiteJob, KeptRows]


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


def suite_job(problems: Path, out: Path, answers: dict[str, Any] | None = None, **fields: Any) -> SuiteJob:
    """Of the demo model, into a new folder; `answers` are changes of how it answers."""
    out.mkdir()
    spec = ModelSpec(
        backend="peft",
        base=BaseCheckpoint(name="demo", checkpoint=str(BASE)),
        quantization=Quantization(compute_dtype="float32", double=False),
        lora=Lora(rank=4, alpha=8),
    )
    settings = SuiteAnswers(**{"max_new_tokens": 12, "samples": 2, **(answers or {})})
    return SuiteJob(name="mine", spec=spec, answers=settings, problems=problems, out=out, **fields)


@pytest.fixture(scope="module")
def answered(write_suite: WriteSuite, tmp_path_factory: pytest.TempPathFactory) -> Answered:
    """A job on 8 problems that was done, and where its answers are kept."""
    folder = tmp_path_factory.mktemp("answered")
    kept = KeptRows(folder=folder / "kept")
    job = suite_job(write_suite(8), folder / "out", rows=kept)
    answer(job, lambda line, values: None)
    return job, kept


@pytest.fixture
def kept(answered: Answered, tmp_path: Path) -> KeptRows:
    """A copy of what it has kept."""
    return KeptRows(folder=Path(shutil.copytree(answered[1].folder, tmp_path / "kept")))


@pytest.fixture
def make_suite_job(write_suite: WriteSuite, tmp_path: Path) -> MakeSuiteJob:
    """A `suite_job` of 8 problems, if nothing else is said."""

    def make(name: str = "out", count: int = 8, answers: dict[str, Any] | None = None, **fields: Any) -> SuiteJob:
        return suite_job(write_suite(count), tmp_path / name, answers, **fields)

    return make
