"""Two evaluations of the same held-out rows, compared row by row."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from ernie_pipeline.evaluation.metrics import compare_paired
from ernie_pipeline.utils.errors import PipelineError


def compare_evaluations(before: Path, after: Path) -> dict[str, float]:
    """`PairedComparison` of the artifacts `before` and `after`, as values.

    Raises `PipelineError` for other rows, and for evaluations by different backends: two ways of holding a model answer
    differently by themselves.
    """
    check_backends(before, after)
    first, second = (_graded(folder) for folder in (before, after))
    if first.keys() != second.keys():
        raise PipelineError(f"the evaluations {before} and {after} are not of the same rows; evaluate both again")
    return asdict(compare_paired(list(first.values()), [second[row] for row in first]))


def check_backends(before: Path, after: Path) -> None:
    """Raise `PipelineError` unless both artifacts' answers were made by one backend."""
    backends = [
        json.loads((folder / "model.json").read_text(encoding="utf-8"))["backend"] for folder in (before, after)
    ]
    if backends[0] != backends[1]:
        raise PipelineError(
            f"the evaluation {before} was made by backend {backends[0]} and {after} by {backends[1]}, so they are not "
            "comparable; set training.backend to one of them and evaluate both again"
        )


def _graded(folder: Path) -> dict[str, bool]:
    """Whether the answer is correct, by row id."""
    table = pq.read_table(folder / "predictions.parquet", columns=["row_id", "correct"])
    return dict(zip(table["row_id"].to_pylist(), table["correct"].to_pylist(), strict=True))
