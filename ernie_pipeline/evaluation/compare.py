"""Two evaluations of the same held-out rows, compared row by row."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ernie_pipeline.evaluation.metrics import compare_paired
from ernie_pipeline.utils.errors import PipelineError


def compare_evaluations(before: Path, after: Path) -> dict[str, Any]:
    """`PairedComparison` of the artifacts `before` and `after`, as values. Raises `PipelineError` for other rows."""
    first, second = (_graded(folder) for folder in (before, after))
    if first.keys() != second.keys():
        raise PipelineError(f"the evaluations {before} and {after} are not of the same rows; evaluate both again")
    return asdict(compare_paired(list(first.values()), [second[row] for row in first]))


def _graded(folder: Path) -> dict[str, bool]:
    """Whether the answer is right, by row id."""
    table = pq.read_table(folder / "predictions.parquet", columns=["row_id", "right"])
    return dict(zip(table["row_id"].to_pylist(), table["right"].to_pylist(), strict=True))
