"""A suite's answers by both models, side by side, beside what of the suite the training rows ask."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.assets.suites.problems import GROUP
from ernie_pipeline.orchestration.pages.tables import gains, table
from ernie_pipeline.orchestration.recipes import Made, each_recipe
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, settings_for
from ernie_pipeline.orchestration.words import rounded
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.suites import ADAPTER, BASE, COMPARISON, PROBLEMS, suite_asset
from ernie_pipeline.store.artifacts import Artifact, Check
from ernie_pipeline.utils.shares import percent, points

SHOWN = 15
"""Questions that got better, and as many that got worse."""
APART = "apart_from_training"


def comparison(name: str) -> Made:
    """The asset that compares both models on the suite."""
    asset = suite_asset(name, COMPARISON)
    problems, base, adapter = (suite_asset(name, part) for part in (PROBLEMS, BASE, ADAPTER))

    @each_recipe(
        name=asset,
        deps=["math_split", problems, base, adapter],
        group_name=GROUP,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        description=f"Base and adapter on the suite {name}: gains, by kind, what got better and worse; contamination.",
        check_specs=[
            dg.AssetCheckSpec(APART, asset=asset, description="No problem of the suite is asked by a training row.")
        ],
    )
    def built(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        def write(work: Work, out: Path) -> list[Check]:
            from ernie_pipeline.data.suites.contamination import write_contamination
            from ernie_pipeline.evaluation.suites.compare import write_comparison

            overlap = work.recipe.decontamination.overlap
            training = write_contamination(work.folder(problems), work.folder("math_split"), overlap, out)
            write_comparison(work.folder(base), work.folder(adapter), training, out)
            return [_apart(out)]

        def show(artifact: Artifact) -> dict[str, Any]:
            from ernie_pipeline.orchestration.suite_figures import log_suite

            log_suite(settings_for(context), name, artifact, context.log.warning)
            return _show(artifact)

        return build_or_reuse(context, write, show)

    return built


def _apart(out: Path) -> Check:
    """Warns: the figures without those problems stand beside the others."""
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    asked = found["contamination"]
    told = f"{asked['contaminated']} of {found['problems']} problems are asked by one of {asked['training_rows']} rows"
    cure = "; name the set in benchmarks.sets, and no training row asks what it asks" if asked["contaminated"] else ""
    return Check(APART, not asked["contaminated"], f"{told}{cure}", blocking=False)


def _show(artifact: Artifact) -> dict[str, Any]:
    import polars as pl

    found = artifact.json("comparison.json")
    asked = found["contamination"]
    changed = pl.read_parquet(artifact.folder / "changed.parquet")
    pairs = pl.read_parquet(artifact.folder / "contamination.parquet")
    tables = {f"gain by {group}": gains(rows) for group, rows in found["by"].items() if rows}
    return {
        "problems": found["problems"],
        "gain": f"{points(found['figures'][0]['gain'])}, p = {found['paired']['p_value']:.1g}",
        "gain (points)": rounded(100 * found["figures"][0]["gain"]),
        "base and adapter": gains(found["figures"]),
        **tables,
        "better": found["better"],
        "worse": found["worse"],
        **{
            f"what got {change}": table(_changed(row) for row in changed.filter(change=change).head(SHOWN).to_dicts())
            for change in ("better", "worse")
        },
        "contaminated problems": asked["contaminated"],
        "contaminated share": percent(asked["share"]),
        "without contaminated problems": gains(asked["figures_without"]),
        **({"contamination": table(pairs.head(SHOWN).to_dicts())} if pairs.height else {}),
    }


def _changed(row: dict[str, Any]) -> dict[str, Any]:
    """Narrow enough for the page; the texts and the shares of the samples stand in changed.parquet."""
    asked = " (a training row asks it)" if row["contaminated"] else ""
    answers = f"{row['base_answer'] or 'none'}, {row['adapter_answer'] or 'none'}"
    return {"base, adapter": answers, "right is": row["reference"], "question": f"{row['question']}{asked}"}
