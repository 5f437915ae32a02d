"""The questions on which base model and adapter differ, as tables for MLflow's pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS = 50
"""Of a table: more than anyone reads, and so few that MLflow's page opens at once."""

Rows = list[dict[str, Any]]


def answer_tables(base: Path, adapter: Path) -> dict[str, Rows]:
    """Up to `ROWS` questions each that the adapter alone answers right, the base alone, and neither.

    `base` and `adapter`: artifacts of evaluations of the same rows. A table without rows is left out.
    """
    import pyarrow.parquet as pq

    columns = ["row_id", "question", "reference", "prediction", "correct", "reason"]
    before, after = (
        {row["row_id"]: row for row in pq.read_table(folder / "predictions.parquet", columns=columns).to_pylist()}
        for folder in (base, adapter)
    )
    pairs = [(before[row_id], row) for row_id, row in after.items() if row_id in before]
    wanted = {"answers_gained": (False, True), "answers_lost": (True, False), "answers_still_wrong": (False, False)}
    tables = {
        name: _table([(was, now) for was, now in pairs if (was["correct"], now["correct"]) == outcome])
        for name, outcome in wanted.items()
    }
    return {name: rows for name, rows in tables.items() if rows}


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
