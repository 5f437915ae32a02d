"""Small rounds on the demo model: a few sums in the demo's own words, and where attempts are kept."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text
from ernie_pipeline.recipe.sections import Solutions
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.solutions.make_solutions import make
from ernie_pipeline.store.row_cache import KeptRows, read_rows
from ernie_pipeline.utils.reporter import Reporter


@dataclass
class Rounds:
    """Rounds that share a set of kept attempts, each in a folder of its own."""

    job: SolutionsJob
    folder: Path
    lines: list[str] = field(default_factory=list)
    report: Reporter = field(default=lambda line, values: None)

    def __call__(self, name: str, **solutions: Any) -> SolutionsJob:
        """A round with other settings; its job."""
        spec = {key: solutions.pop(key) for key in ("split", "earlier", "execution") if key in solutions}
        job = self.job.model_copy(
            update={"solutions": self.job.solutions.model_copy(update=solutions), "out": self.folder / name, **spec}
        )
        job.out.mkdir()
        make(job, self._hear)
        return job

    def _hear(self, line: str, values: dict[str, Any]) -> None:
        self.lines.append(line)
        self.report(line, values)

    @property
    def kept(self) -> dict[str, list[int]]:
        """Tokens of each attempt that is kept."""
        return read_rows(self.folder / "set")


@pytest.fixture(scope="session")
def sums() -> list[dict[str, Any]]:
    """Twelve rows of a split that the demo model often solves."""
    tokenizer, rng = load_tokenizer(str(BASE)), random.Random(0)
    rows = []
    for number in range(12):
        a, b = rng.randint(10, 60), rng.randint(10, 39)
        question = f"State the final answer to the following arithmetic problem: {a} + {b} ="
        text = prompt_text(tokenizer, [{"role": "user", "content": INSTRUCTION + question}])
        row = {"row_id": f"{number:016x}", "kind": "integer", "question": question, "answer": str(a + b)}
        rows.append({**row, "prompt_text": text})
    return rows


@pytest.fixture
def split_of(tmp_path: Path) -> Callable[..., Path]:
    def written(name: str, rows: list[dict[str, Any]]) -> Path:
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "train.parquet")
        return tmp_path / name

    return written


@pytest.fixture
def rounds(
    make_job: Callable[..., Any], sums: list[dict[str, Any]], split_of: Callable[..., Path], tmp_path: Path
) -> Rounds:
    """Of four attempts at each of ten sums."""
    settings = Solutions(samples=4, keep=2, max_new_tokens=40, validation_fraction=0.3)
    job = SolutionsJob(
        spec=make_job("none").spec,
        solutions=settings,
        split=split_of("ten", sums[:10]),
        out=tmp_path,
        rows=KeptRows(folder=tmp_path / "set"),
    )
    return Rounds(job, tmp_path)
