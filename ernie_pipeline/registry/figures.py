"""A model's figures in MLflow: a handful as metrics, by which runs are sorted and charted; all of them in a table."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ernie_pipeline.registry.run_log import OfModel, log_table, log_values

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS = ("accuracy", "accuracy_strict", "loss_completion", "comparison/gain")
"""Of the held-out rows. MLflow draws a chart of a single bar for every other one."""

TABLE = "figures.json"
"""All figures on the held-out rows."""

LOW, HIGH = "_low", "_high"


def log_figures(client: "MlflowClient", run_id: str, figures: Mapping[str, float], of: OfModel) -> None:
    """Log figures on the held-out rows to a run and its logged model."""
    log_values(client, run_id, metrics={name: figures[name] for name in METRICS if name in figures}, of=of)
    log_table(client, run_id, TABLE, as_rows(figures))


def as_rows(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """A line for each, the metrics first; the ends of an interval stand in the line of what they are of, "" where there
    is none."""
    order = [name for name in METRICS if name in figures]
    order += [name for name in figures if name not in METRICS and not _is_end(name, figures)]
    return [
        {
            "figure": name,
            "value": figures[name],
            "low": figures.get(name + LOW, ""),
            "high": figures.get(name + HIGH, ""),
        }
        for name in order
    ]


def _is_end(name: str, figures: Mapping[str, float]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in figures for end in (LOW, HIGH))


def from_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What `as_rows` was given; JSON has no word for a NaN but null."""
    ends = {"value": "", "low": LOW, "high": HIGH}
    cells = {f"{row['figure']}{end}": row[column] for row in rows for column, end in ends.items()}
    return {name: math.nan if cell is None else cell for name, cell in cells.items() if cell != ""}
