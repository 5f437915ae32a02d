"""The page of the verified solutions: how much the model solves, and what it wrote."""

from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.pages.evaluation import run_words
from ernie_pipeline.orchestration.pages.tables import metric, metrics_table, table, texts
from ernie_pipeline.orchestration.plots import pass_rates
from ernie_pipeline.orchestration.words import figure, rounded
from ernie_pipeline.solutions.not_asked_for import is_asked_for
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.utils.shares import percent

SHOWN = 10
"""Solutions, and failed attempts."""


def show_solutions(artifact: Artifact) -> dict[str, Any]:
    """What is told of an artifact with metrics.json, attempts.parquet and reports/run.json, or that has none."""
    if not is_asked_for(artifact.folder):
        return {"solutions": 'not asked for: training.on is "answers"', "dagster/row_count": 0}
    metrics, run = artifact.json("metrics.json"), artifact.json("reports/run.json")
    rounds, kinds, counts = metrics.pop("rounds"), metrics.pop("by_kind"), metrics.pop("pass_rates")
    pass_at = metrics.pop("pass_at")
    return {
        "dagster/row_count": metrics["train_solutions"] + metrics["validation_solutions"],
        "solved": f"{figure(metrics['solved'])} of {figure(metrics['problems'])} problems "
        f"({percent(metrics['solved_share'])})",
        "how often": f"{figure(metrics['always'])} always, {figure(metrics['sometimes'])} sometimes, "
        f"{figure(metrics['never'])} never",
        "kept solutions": figure(metrics["kept"]),
        "pass rate (%)": rounded(100 * metrics["pass_rate"]),
        "pass at k": table({"k": int(k), "solved": percent(value)} for k, value in pass_at.items()),
        "pass rates": dg.MetadataValue.md(pass_rates(counts)),
        "pass rate by kind of answer": table(_line("kind", kind, values) for kind, values in kinds.items()),
        "rounds": table(_line("", "", values) for values in rounds),
        **_examples(artifact),
        "metrics": metrics_table(metrics),
        **run_words(run),
    }


def _line(name: str, label: str, values: dict[str, Any]) -> dict[str, Any]:
    plain = {
        key.replace("_", " "): metric(key, value) for key, value in values.items() if isinstance(value, int | float)
    }
    return {**({name: label} if name else {}), **dict(list(plain.items())[:5])}


def _examples(artifact: Artifact) -> dict[str, Any]:
    """Some kept solutions, and some attempts that failed, with the reason."""
    import polars as pl

    attempts = pl.read_parquet(artifact.folder / "attempts.parquet")
    kept = attempts.filter("kept").head(SHOWN).to_dicts()
    failed = attempts.filter(~pl.col("strict")).head(SHOWN).to_dicts()
    return {
        "failed attempts": table(
            {"right is": row["reference"], "why": _why(row), "question": row["question"]} for row in failed
        ),
        "solutions in full": texts((_heading(row, f"round {row['round']}"), row["text"]) for row in kept),
        "failed attempts in full": texts((_heading(row, _why(row)), row["text"]) for row in failed),
    }


def _why(row: dict[str, Any]) -> str:
    return str(row["reason"] or row["outcome"])


def _heading(row: dict[str, Any], told: str) -> str:
    return f"{' '.join(row['question'].split())} (right is {row['reference']}; {told})"
