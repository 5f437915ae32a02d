"""The filtered, templated rows, divided into training and evaluation."""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.local import LocalLauncher
from ernie_pipeline.models.checkpoint.version import pinned_checkpoint
from ernie_pipeline.orchestration.pages.split import show_split
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.artifacts import Artifact, Check


def _check(name: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset="math_split", blocking=True, description=description)


@each_recipe(
    deps=["raw_nemotron", "base_model", "benchmark_sets"],
    group_name="data",
    kinds={"polars", "parquet", "huggingface"},
    owners=OWNERS,
    description="The rows that pass the filters, in the base model's chat template, divided into train and evaluation.",
    check_specs=[
        _check("sizes", "Both parts have their rows."),
        _check("no_overlap", "No problem is in both parts."),
        _check("accounted_for", "Every row of the source is in the ledger exactly once."),
        dg.AssetCheckSpec("filters", asset="math_split", description="No filter took more than a third of the rows."),
    ],
)
def math_split(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    def write(work: Work, out: Path) -> list[Check]:
        from ernie_pipeline.data.job import split_job

        recipe, versions, raw = work.recipe, work.made_from.inputs, work.folder("raw_nemotron")
        base = pinned_checkpoint(recipe.base_model.name, versions["base_model"])
        cache = Settings.from_environment().home / "cache" / "parsed_answers.json"
        benchmarks = (recipe.benchmarks.sets, versions["benchmark_sets"])
        job = split_job(recipe, base, benchmarks, raw=raw, out=out, cache=cache)
        LocalLauncher().run(context, Launch("split", job, threads=os.cpu_count() or 1))
        return _checks(raw, out, recipe.split.rows)

    return build_or_reuse(context, write, show_split, judge=_judged)


def _judged(artifact: Artifact) -> list[Check]:
    """The check `filters`, of every artifact, whenever it was built."""
    words = _heavy(artifact.json("reports/profile.json"))
    return [Check("filters", not words, "; ".join(words) or "no filter took more than a third", blocking=False)]


def _heavy(profile: dict[str, Any]) -> list[str]:
    from ernie_pipeline.data.tables.heavy_filters import told_by_profile

    return told_by_profile(profile)


def checked_split(work: Work) -> Path:
    """The folder of the split, once both tables keep to their contract: asked before a GPU is taken."""
    from ernie_pipeline.data.tables.contracts import SplitRows, read_checked

    folder = work.folder("math_split")
    for part in ("train", "eval"):
        read_checked(SplitRows, folder / f"{part}.parquet")
    return folder


def _checks(raw: Path, out: Path, wanted: int) -> list[Check]:
    """What the files say once they are written, whoever wrote them."""
    import polars as pl

    from ernie_pipeline.data.normalize.text import question_key
    from ernie_pipeline.data.tables.ledger import places_of, unaccounted

    train, held_out = (
        pl.read_parquet(out / f"{part}.parquet", columns=["question"]).select(question_key(pl.col("question")))
        for part in ("train", "eval")
    )
    ledger = pl.read_parquet(out / "reports" / "ledger.parquet", columns=["line", "place"])
    lines = [pl.read_parquet(raw / name, columns=["line"])["line"] for name in ("rows.parquet", "bad_rows.parquet")]
    shared = train.unique().join(held_out.unique(), on="question", how="semi").height
    lost = unaccounted(ledger, *lines)
    sizes = len(train) > 0 and len(held_out) > 0 and wanted in (0, len(train) + len(held_out))
    asked = f" of {wanted} asked for" if wanted else ""
    places = ", ".join(f"{rows} {place}" for place, rows in places_of(ledger).items())
    return [
        Check("sizes", sizes, f"{len(train)} training and {len(held_out)} evaluation rows{asked}"),
        Check("no_overlap", shared == 0, f"{shared} questions stand in both parts"),
        Check("accounted_for", lost == 0, f"{sum(map(len, lines))} source rows: {places}; {lost} unaccounted for"),
    ]
