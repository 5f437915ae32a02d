"""The page of a registered model: the adapter beside its base, where it is, and what changed since the last one."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ernie_pipeline.grading.intervals import wilson
from ernie_pipeline.orchestration.links import mlflow_links
from ernie_pipeline.orchestration.pages.champion import against_last_champion
from ernie_pipeline.orchestration.pages.evaluation import whole
from ernie_pipeline.orchestration.pages.sketch import COLOURS, Bar, bars
from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.plots import accuracy_picture
from ernie_pipeline.orchestration.words import figure, rounded
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.lookup import aliases_now
from ernie_pipeline.registry.trained_on import loss_note, trained_on
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import between, percent, points, points_between

SHOWN = 10


def show_registration(artifact: Artifact, settings: Settings, chain: Chain) -> dict[str, Any]:
    """What is told of an artifact with registration.json and comparison.json, by the `chain` that it is of."""
    registration, comparison = artifact.json("registration.json"), artifact.json("comparison.json")
    measured = {}
    with suppress(PipelineError):  # what is told of them is told where they stand
        measured = {name: chain.artifact(f"{name}_evaluation") for name in ("base", "adapter")}
    return {
        "gain over the base model": gain_words(comparison),
        **(_side_by_side(measured, chain) if measured else {}),
        "gate": f"{'passed' if registration['promoted'] else 'not passed'}: {' '.join(registration['reasons'])}",
        **aliases(registration, settings),
        **mlflow_links(settings, registration),
        "model": registration["model_uri"],
        "gain in accuracy (points)": rounded(100 * comparison["gain"]),
        "answers, base and adapter": table(_four_counts(comparison)),
        **(_changed(measured) if measured else {}),
        **(against_last_champion(chain.store, artifact, measured["adapter"].folder) if measured else {}),
        "answer after reload": registration["answer"],
        "logits after reload differ by": figure(registration["max_logit_difference"]),
    }


def gain_words(comparison: dict[str, float]) -> str:
    """ "+9.5 points (+5.2 to +14.0), p = 2e-05"."""
    interval = points_between(comparison["gain_low"], comparison["gain_high"])
    return f"{points(comparison['gain'])} ({interval}), p = {comparison['p_value']:.1g}"


def aliases(registration: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A page stays as it was written, and aliases move: those that the version got are told as such, and when those
    that it has were read."""
    told = {"aliases at registration": ", ".join(registration["aliases"])}
    return {**told, "aliases": aliases_read(registration, settings)}


def aliases_read(registration: dict[str, Any], settings: Settings) -> str:
    """ "champion (read from the registry at 2026-11-29 11:26 UTC)"; or why they are not known."""
    try:
        now = aliases_now(settings.tracking_uri, registration["name"], str(registration["version"]))
    except PipelineError as error:  # what it was when it was registered stands, whether the registry answers or not
        return f"not known: {error}"
    return f"{', '.join(now or ()) or 'none'} (read from the registry at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)"


def _side_by_side(measured: dict[str, Artifact], chain: Chain) -> dict[str, Any]:
    base, adapter = (measured[name].json("metrics.json") for name in ("base", "adapter"))
    drawn: list[Bar] = [whole(base, "base", COLOURS[0]), whole(adapter, "adapter", COLOURS[1])]
    kinds = sorted(adapter["by_kind"], key=lambda kind: -adapter["by_kind"][kind]["rows"])
    lines = [("all", base, adapter), *((kind, base["by_kind"].get(kind), adapter["by_kind"][kind]) for kind in kinds)]
    return {
        "base and adapter": dg.MetadataValue.md(bars("base and adapter", drawn)),
        "accuracy": table(
            {"kind": kind, "rows": now["rows"], "base": percent(was and was["accuracy"]), "adapter": _told(now)}
            for kind, was, now in lines
        ),
        "base and adapter by kind of answer": dg.MetadataValue.md(accuracy_picture(base, adapter)),
        "loss on the completions": " -> ".join(figure(each["loss_completion"]) for each in (base, adapter)),
        **_why_higher(base, adapter, chain),
    }


def _why_higher(base: dict[str, Any], adapter: dict[str, Any], chain: Chain) -> dict[str, str]:
    with suppress(PipelineError):  # the adapter need not be there any more
        on = trained_on([chain.artifact("qlora_adapter").manifest["recipe"]])
        if note := loss_note("the adapter", on, adapter, base):
            return {"why the loss rose": note}
    return {}


def _told(metrics: dict[str, Any]) -> str:
    return f"{percent(metrics['accuracy'])} ({between(*wilson(metrics['accuracy'], metrics['rows']))})"


def _four_counts(comparison: dict[str, float]) -> list[dict[str, Any]]:
    names = {"both_correct": "both right", "only_before": "only the base", "only_after": "only the adapter"}
    names["neither"] = "neither"
    return [{"right": words, "rows": int(comparison[name])} for name, words in names.items()]


def _changed(measured: dict[str, Artifact]) -> dict[str, Any]:
    """The questions that the base model answers right and the adapter wrong: its worst failures."""
    import polars as pl

    columns = ["row_id", "question", "reference", "extracted", "correct"]
    base, adapter = (
        pl.read_parquet(measured[name].folder / "predictions.parquet", columns=columns) for name in ("base", "adapter")
    )
    both = adapter.join(base.select("row_id", was=pl.col("correct")), on="row_id")
    lost = both.filter(~pl.col("correct") & pl.col("was")).head(SHOWN).to_dicts()
    told = table(
        {"said": r["extracted"] or "none", "right is": r["reference"], "question": r["question"]} for r in lost
    )
    return {"right by the base, wrong by the adapter": told} if lost else {}
