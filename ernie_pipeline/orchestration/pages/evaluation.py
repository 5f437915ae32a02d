"""The page of an evaluation: how often the model is right, by kind of answer, and where it is not."""

from typing import Any

import dagster as dg

from ernie_pipeline.grading.intervals import wilson
from ernie_pipeline.orchestration.pages.sketch import COLOURS, Bar, bars
from ernie_pipeline.orchestration.pages.tables import metrics_table, table, texts
from ernie_pipeline.orchestration.words import figure, rounded, rows
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.utils.shares import between, percent

SHOWN = 12
"""Failures, and whole answers."""


def show_evaluation(artifact: Artifact) -> dict[str, Any]:
    """What is told of an artifact with metrics.json, predictions.parquet and reports/run.json."""
    import polars as pl

    metrics, run = artifact.json("metrics.json"), artifact.json("reports/run.json")
    kinds = metrics.pop("by_kind")
    predictions = pl.read_parquet(artifact.folder / "predictions.parquet")
    failures = predictions.filter(~pl.col("correct")).sort("ended", "boxed", "outcome")
    return {
        "accuracy": accuracy_words(metrics),
        "accuracy by kind": dg.MetadataValue.md(bars("accuracy by kind", [whole(metrics), *by_kind(kinds)])),
        "accuracy, boxed and ended": percent(metrics["accuracy_strict"]),
        "loss on the completions": rounded(metrics["loss_completion"]),
        "accuracy (%)": rounded(100 * metrics["accuracy"]),
        "dagster/row_count": predictions.height,
        "failures": table(_failure(row) for row in failures.head(SHOWN).to_dicts()),
        "why answers failed": table(failures["reason"].value_counts(sort=True).head(SHOWN).to_dicts()),
        "kinds of answer": table(_kind(kind, values) for kind, values in kinds.items()),
        "metrics": metrics_table(metrics),
        "answers in full": texts(_in_full(row) for row in (*failures.head(SHOWN).to_dicts(), *_right(predictions))),
        **run_words(run),
    }


def accuracy_words(metrics: dict[str, Any]) -> str:
    """ "87.4 % (82.7 to 90.9 %) of 253 rows"."""
    interval = between(metrics["accuracy_low"], metrics["accuracy_high"])
    return f"{percent(metrics['accuracy'])} ({interval}) of {rows(metrics['rows'])}"


def whole(metrics: dict[str, Any], label: str = "all", colour: str = COLOURS[1]) -> Bar:
    """The bar of all rows."""
    share, low, high = metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"]
    return Bar(label, share, low, high, f"{percent(share)} of {metrics['rows']:,}", colour)


def by_kind(kinds: dict[str, dict[str, Any]]) -> list[Bar]:
    """A bar for each kind of answer, that with the most rows first."""
    ordered = sorted(kinds.items(), key=lambda item: -item[1]["rows"])
    return [
        Bar(kind, of["accuracy"], *wilson(of["accuracy"], of["rows"]), f"{percent(of['accuracy'])} of {of['rows']:,}")
        for kind, of in ordered
    ]


def run_words(run: dict[str, Any]) -> dict[str, Any]:
    """How the answers were made: names as people say them, counts with their thousands parted."""
    return {
        name.replace("_", " "): value if isinstance(value, str) else figure(value)
        for name, value in run.items()
        if value is not None
    }


def _kind(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    interval = between(*wilson(values["accuracy"], values["rows"]))
    return {"kind": kind, "rows": values["rows"], "right": percent(values["accuracy"]), "95 % interval": interval}


def _failure(row: dict[str, Any]) -> dict[str, Any]:
    said = row["extracted"] or ("cut off" if not row["ended"] else "no answer")
    return {"said": said, "right is": row["reference"], "question": row["question"]}


def _right(predictions: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = predictions.filter("correct").head(SHOWN).to_dicts()
    return found


def _in_full(row: dict[str, Any]) -> tuple[str, str]:
    told = "right" if row["correct"] else f"{row['outcome']}, {row['reason']}; right is {row['reference']}"
    return f"{' '.join(row['question'].split())} ({told})", row["prediction"]
