"""A model's attempts at a suite's problems: which are made, and the table of them with their grades."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.grading.attempts import grade_values
from ernie_pipeline.grading.grade import Grade, is_strict
from ernie_pipeline.recipe.suites import SuiteAnswers
from ernie_pipeline.utils.stable_hash import stable_number

FILE = "attempts.parquet"
COLUMNS = ("row_id", "question", "answer", "kind", "level", "subject", "prompt_text")
GREEDY = 0
"""The number of the greedy attempt at each problem; those that are sampled have 1, 2 and so on."""


class Problem(NamedTuple):
    """A suite's problem: `answer` is the bare reference answer, `prompt_text` the chat template's text up to where the
    model is to write."""

    row_id: str
    question: str
    answer: str
    kind: str
    level: str | None
    subject: str | None
    prompt_text: str


@dataclass(frozen=True)
class Attempt:
    """One answer to a problem. `sample`: `GREEDY`, or the number of the sampled one; `tokens`: how many it has.

    `ended`: by its end token, not by the limit; `boxed`, `extracted`, `outcome` and `reason` are its grade's.
    `correct`: right, wherever it stands in the answer; `strict`: right, boxed and ended.
    """

    row_id: str
    question: str
    reference: str
    kind: str
    level: str | None
    subject: str | None
    sample: int
    text: str
    tokens: int
    ended: bool
    boxed: bool
    extracted: str | None
    outcome: str
    reason: str
    correct: bool
    strict: bool


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("row_id", "question", "reference", "kind", "level", "subject")),
        ("sample", pa.int64()),
        ("text", pa.string()),
        ("tokens", pa.int64()),
        *((name, pa.bool_()) for name in ("ended", "boxed")),
        *((name, pa.string()) for name in ("extracted", "outcome", "reason")),
        *((name, pa.bool_()) for name in ("correct", "strict")),
    ]
)


def read_problems(file: Path) -> list[Problem]:
    """The problems of a suite's problems.parquet, in its order."""
    return [Problem(**row) for row in pq.read_table(file, columns=[*COLUMNS]).to_pylist()]


def seed_of(problem: Problem, answers: SuiteAnswers, sample: int) -> int:
    """The seed of an attempt, 62 bits; 0 of the greedy one.

    Of the prompt's own text, the suite's seed, the sample's number, and how it is sampled: so another row, more samples
    or another order of the rows leave it as it is, and another temperature gives other attempts, not the same again.
    """
    if sample == GREEDY:
        return 0
    how = (answers.seed, repr(answers.temperature), repr(answers.top_p))
    return stable_number("suite", *how, sample, problem.prompt_text) >> 2


def attempt(problem: Problem, sample: int, text: str, tokens: Sequence[int], ended: bool, grade: Grade) -> Attempt:
    """The attempt with its grade."""
    return Attempt(
        row_id=problem.row_id,
        question=problem.question,
        reference=problem.answer,
        kind=problem.kind,
        level=problem.level,
        subject=problem.subject,
        sample=sample,
        text=text,
        tokens=len(tokens),
        ended=ended,
        correct=grade.outcome == "correct",
        strict=is_strict(grade, ended),
        **grade_values(grade),
    )


def write_attempts(attempts: Sequence[Attempt], out: Path) -> None:
    """Write attempts.parquet, a row for each attempt."""
    pq.write_table(pa.Table.from_pylist([asdict(each) for each in attempts], schema=SCHEMA), out / FILE)


def read_attempts(folder: Path) -> list[Attempt]:
    """The attempts that an artifact holds."""
    return [Attempt(**row) for row in pq.read_table(folder / FILE).to_pylist()]
