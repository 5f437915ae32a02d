"""A suite's set, observed; and its problems, as both models are asked them."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.local import LocalLauncher
from ernie_pipeline.models.checkpoint.version import pinned_checkpoint
from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.recipes import Made, each_recipe, each_recipe_observes
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse, observation
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.suites import PROBLEMS, SET, suite_asset
from ernie_pipeline.store.artifacts import Artifact, Check

GROUP = "suites"
SHOWN = 5


def problem_set(name: str) -> Made:
    """The asset that observes where the suite's rows are."""
    asset = suite_asset(name, SET)

    @each_recipe_observes(
        name=asset,
        group_name=GROUP,
        description=f"The set of the suite {name}. Its version is the hub commit, or a hash of the file's content.",
    )
    def observed(context: dg.OpExecutionContext) -> dg.ObserveResult:
        return observation(context)

    return observed


def problems(name: str) -> Made:
    """The asset that holds the suite's problems."""
    asset = suite_asset(name, PROBLEMS)

    @each_recipe(
        name=asset,
        deps=[suite_asset(name, SET), "base_model"],
        group_name=GROUP,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        description=f"The problems of the suite {name} and their reference answers, in the model's chat template.",
        check_specs=[
            dg.AssetCheckSpec("answerable", asset=asset, blocking=True, description="There are problems with answers.")
        ],
    )
    def built(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        def write(work: Work, out: Path) -> list[Check]:
            from ernie_pipeline.data.suites.job import suite_problems_job

            versions = work.made_from.inputs
            base = pinned_checkpoint(work.recipe.base_model.name, versions["base_model"])
            job = suite_problems_job(work.recipe, name, versions[suite_asset(name, SET)], base, out)
            LocalLauncher().run(context, Launch("suite_problems", job, threads=os.cpu_count() or 1))
            counts = json.loads((out / "reports" / "counts.json").read_text())
            told = f"{counts['problems']} problems of {counts['rows']} rows, {len(counts['left_out'])} left out"
            return [Check("answerable", counts["problems"] > 0, told)]

        return build_or_reuse(context, write, _show)

    return built


def _show(artifact: Artifact) -> dict[str, Any]:
    import polars as pl

    counts = artifact.json("reports/counts.json")
    rows = pl.read_parquet(artifact.folder / "problems.parquet")
    return {
        "dagster/row_count": counts["problems"],
        "rows of the set": counts["rows"],
        "rows left out": len(counts["left_out"]),
        **({"left out": "; ".join(counts["left_out"][:SHOWN])} if counts["left_out"] else {}),
        "kinds of answer": table(rows["kind"].value_counts(sort=True).to_dicts()),
        "sample": table(rows.select("question", "answer", "kind").head(SHOWN).to_dicts()),
    }
