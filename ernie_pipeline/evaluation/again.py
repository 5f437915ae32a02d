"""Stored answers, graded once more by the grader of today, and their figures worked out anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ernie_pipeline.evaluation.metrics import by_kind, summarise
from ernie_pipeline.grading.grade import Grade, Grader, is_strict

GRADED = ("outcome", "boxed", "extracted")
"""What a grade is, besides the words for why."""

Row = dict[str, Any]


@dataclass(frozen=True)
class GradedAgain:
    """`changed`: a clause for each of the `rows` that is graded otherwise today, or whose row in the split is another.

    `late`: answers whose grading ran out of time, then or now: those say nothing, and count as they are stored.
    `metrics`: of an evaluation, the figures of `summarise`, and `by_kind`, of the grades of today.
    """

    rows: int
    changed: list[str]
    late: int
    metrics: dict[str, Any] = field(default_factory=dict)


def grade_evaluation_again(evaluation: Path, split: Path, grader: Grader) -> GradedAgain:
    """Grade the answers in the artifact `evaluation` against the reference answers of the artifact `split`.

    Raises `PipelineError` for an answer on which a worker dies.
    """
    rows = pq.read_table(evaluation / "predictions.parquet").to_pylist()
    asked = _problems(split / "eval.parquet")
    known, grades, found = _again(rows, "prediction", asked, grader)
    kinds = by_kind([asked[row["row_id"]]["kind"] for row in known], grades)
    figures = {**summarise(grades, [row["ended"] for row in known]), "by_kind": kinds} if grades else {}
    return GradedAgain(found.rows, found.changed, found.late, figures)


def grade_attempts_again(solutions: Path, split: Path, grader: Grader) -> GradedAgain:
    """Grade every attempt in the artifact `solutions`, kept or not. Raises as `grade_evaluation_again`."""
    rows = pq.read_table(solutions / "attempts.parquet").to_pylist()
    return _again(rows, "text", _problems(split / "train.parquet"), grader)[2]


def _problems(file: Path) -> dict[str, Row]:
    """By row id: question, answer and kind."""
    columns = ["row_id", "question", "answer", "kind"]
    return {row["row_id"]: row for row in pq.read_table(file, columns=columns).to_pylist()}


def _again(
    rows: Sequence[Row], answer: str, asked: Mapping[str, Row], grader: Grader
) -> tuple[list[Row], list[Grade], GradedAgain]:
    """The rows of known problems, their grades of today (of one that ran out of time, the stored one), and what
    changed."""
    known = [row for row in rows if row["row_id"] in asked]
    changed = [f"row {row['row_id']} is none of the split's" for row in rows if row["row_id"] not in asked]
    references = [asked[row["row_id"]]["answer"] for row in known]
    grades = grader.grade([row[answer] for row in known], references)
    late = 0
    for i, row in enumerate(known):
        if "timeout" in (row["outcome"], grades[i].outcome):
            grades[i] = Grade(**{name: row[name] for name in GRADED}, seconds=0.0)
            late += 1
        elif difference := _difference(row, asked[row["row_id"]], grades[i]):
            changed.append(f"row {row['row_id']}: {difference}")
    return known, grades, GradedAgain(len(rows), changed, late)


def _difference(stored: Row, asked: Row, today: Grade) -> str:
    """How a stored answer, or its row, is not as it was stored; "" if it is."""
    if (stored["question"], stored["reference"]) != (asked["question"], asked["answer"]):
        return "its question or reference answer is not that of the split"
    expected = {
        **{name: getattr(today, name) for name in GRADED},
        "correct": today.outcome == "correct",
        "strict": is_strict(today, stored["ended"]),
    }
    wrong = [name for name, value in expected.items() if name in stored and stored[name] != value]
    return f"{wrong[0]} is stored as {stored[wrong[0]]!r}, and {expected[wrong[0]]!r} today" if wrong else ""
