"""Base model's and adapter's answers, and the questions on which they differ, as tables for MLflow's pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS = 50
"""Of a table: more than anyone reads, and so few that MLflow's page opens at once."""

Rows = list[dict[str, Any]]

COLUMNS = ["row_id", "question", "reference", "prediction", "correct", "reason"]


def answer_tables(base: Path, adapter: Path) -> dict[str, Rows]:
    """Up to `ROWS` questions each that the adapter alone answers right, the base alone, and neither.

    `base` and `adapter`: artifacts of evaluations of the same rows. A table without rows is left out.
    """
    before, after = _predictions(base), _predictions(adapter)
    pairs = [(before[row_id], row) for row_id, row in after.items() if row_id in before]
    wanted = {"answers_gained": (False, True), "answers_lost": (True, False), "answers_still_wrong": (False, False)}
    tables = {
        name: _table([(was, now) for was, now in pairs if (was["correct"], now["correct"]) == outcome])
        for name, outcome in wanted.items()
    }
    return {name: rows for name, rows in tables.items() if rows}


def first_answers(evaluation: Path) -> Rows:
    """The model's answers to the first `ROWS` questions. The page of an experiment compares runs by the first column
    behind the question, unless another is chosen."""
    return [
        {
            "question": row["question"],
            "answer": row["prediction"],
            "right": row["correct"],
            "reference": row["reference"],
            "how it was graded": row["reason"],
        }
        for row in [*_predictions(evaluation).values()][:ROWS]
    ]


def _predictions(evaluation: Path) -> dict[str, dict[str, Any]]:
    """By row, in their order."""
    import pyarrow.parquet as pq

    rows = pq.read_table(evaluation / "predictions.parquet", columns=COLUMNS).to_pylist()
    return {row["row_id"]: row for row in rows}


def _table(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Rows:
    return [
        {
            "question": now["question"],
            "reference": now["reference"],
            "base's answer": was["prediction"],
            "adapter's answer": now["prediction"],
            "how the adapter's was graded": now["reason"],
        }
        for was, now in pairs[:ROWS]
    ]
