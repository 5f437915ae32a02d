"""The pages of the raw rows and of the split: how many there are, and where the others went."""

from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.plots import dropped_rows
from ernie_pipeline.orchestration.words import figure, place, rows
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.utils.shares import percent

SHOWN_COLUMNS = 50
SHOWN_SAMPLES = 3


def show_split(artifact: Artifact) -> dict[str, Any]:
    """What is told of an artifact with train.parquet, eval.parquet and their reports."""
    import polars as pl

    profile, reports = artifact.json("reports/profile.json"), artifact.folder / "reports"
    places, tokens = profile["places"], profile["tokens"]["train"]
    train = pl.read_parquet(artifact.folder / "train.parquet", n_rows=SHOWN_SAMPLES)
    return {
        "dagster/row_count": places["train"] + places["evaluation"],
        "rows": f"{figure(places['train'])} to train on, {figure(places['evaluation'])} held out, "
        f"{figure(places.get('dropped', 0))} dropped of {rows(sum(places.values()))}",
        "tokens of a training row": f"{figure(tokens['median'])} (median), {figure(tokens['longest'])} (longest)",
        "rows by filter": table(_dropped(profile)),
        "where the rows went": dg.MetadataValue.md(dropped_rows(profile["dropped"], places)),
        "profile": dg.MetadataValue.md((reports / "profile.md").read_text(encoding="utf-8")),
        "sample": table(_sample(row) for row in train.to_dicts()),
        "ledger": dg.MetadataValue.path(place(reports / "ledger.parquet")),
    }


def show_raw(artifact: Artifact) -> dict[str, Any]:
    """What is told of an artifact with rows.parquet and bad_rows.parquet."""
    import polars as pl

    found = pl.scan_parquet(artifact.folder / "rows.parquet")
    bad = pl.read_parquet(artifact.folder / "bad_rows.parquet")
    left_out, count = artifact.json("reports/columns.json")["left_out"], int(found.select(pl.len()).collect().item())
    return {
        "dagster/row_count": count,
        "rows": f"{rows(count)}, {rows(len(bad), 'broken one')} left out",
        "source version": artifact.manifest["inputs"]["nemotron_source"],
        **({"first broken rows": table(bad.head(20).to_dicts())} if len(bad) else {}),
        **({"columns left out": _listed(left_out)} if left_out else {}),
        "sample": table(found.select("line", "expected_answer", "question").head(5).collect().to_dicts()),
    }


def _dropped(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """The filters that took rows, that which took most first."""
    every, taken = sum(profile["places"].values()), profile["dropped"].items()
    ordered = sorted(((name, count) for name, count in taken if count), key=lambda each: -each[1])
    return [{"filter": name, "rows": count, "of all": percent(count / every)} for name, count in ordered]


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    return {"completion": row["completion_text"], "prompt": " ".join(row["prompt_text"].split())[-100:]}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(names[:SHOWN_COLUMNS]) + more
