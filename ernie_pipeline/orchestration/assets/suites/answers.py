"""A model's answers to a suite: the base model's, and those of the adapter on it."""

from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.assets.suites.problems import GROUP
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.pages.evaluation import run_words
from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.recipes import Made, each_recipe
from ernie_pipeline.orchestration.report import OWNERS, build_or_reuse
from ernie_pipeline.orchestration.words import rounded
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.suites import ADAPTER, PROBLEMS, suite_asset
from ernie_pipeline.store.artifacts import Artifact, Check
from ernie_pipeline.store.quantized_base import FOLDER
from ernie_pipeline.utils.shares import between, percent

SHOWN = 20
SHOWN_COLUMNS = ("question", "reference", "text", "outcome")


def answers(name: str, part: str) -> Made:
    """The asset that holds the answers of the base model, or with the `part` `ADAPTER` of the adapter."""
    asset, problems = suite_asset(name, part), suite_asset(name, PROBLEMS)
    adapter = "qlora_adapter" if part == ADAPTER else None

    @each_recipe(
        name=asset,
        deps=[problems, "base_model", *([adapter] if adapter else [])],
        group_name=GROUP,
        kinds={"pytorch", "parquet"},
        owners=OWNERS,
        pool="gpu",
        description=f"The suite {name} by the {'adapter' if adapter else '4-bit base model'}: greedy and sampled "
        "answers, graded, with avg@n, pass@k and maj@k.",
        check_specs=[
            dg.AssetCheckSpec(
                "complete", asset=asset, blocking=True, description="Every attempt that was asked is there."
            )
        ],
    )
    def built(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
        def write(work: Work, out: Path) -> list[Check]:
            from ernie_pipeline.evaluation.suites.job import suite_job

            job = suite_job(
                work.recipe,
                name,
                work.made_from.inputs["base_model"],
                Settings.from_environment().store / FOLDER,
                work.folder(adapter) if adapter else None,
                execution=gpu.execution_over(work.recipe.execution),
                limits=gpu.limits(),
                problems=work.folder(problems),
                out=out,
                rows=work.rows,
            )
            gpu.run(context, "suite", job, unfinished=work.unfinished)
            return [_complete(out, work.folder(problems), job.answers.samples)]

        return build_or_reuse(context, write, _show)

    return built


def _complete(out: Path, problems: Path, samples: int) -> Check:
    import polars as pl

    made = pl.read_parquet(out / "attempts.parquet", columns=["row_id", "sample"])
    wanted = pl.read_parquet(problems / "problems.parquet", columns=["row_id"]).height * (samples + 1)
    told = f"{made.height} graded answers of {wanted}: to each problem a greedy one and {samples} sampled ones"
    return Check("complete", made.height == made.unique().height == wanted, told)


def figure_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each figure: what it is, its value, and its intervals over problems and seeds."""
    rows = [("greedy", metrics["greedy"]), ("greedy, boxed and ended", metrics["greedy_strict"])]
    rows += [(f"{name}@{k}", each) for name in ("avg", "pass", "maj") for k, each in metrics[f"{name}_at"].items()]
    return [{"figure": name, **{key: _text(value) for key, value in each.items()}} for name, each in rows]


def _text(value: float | None) -> str:
    return percent(value)


def _show(artifact: Artifact) -> dict[str, Any]:
    import polars as pl

    metrics, run = artifact.json("metrics.json"), artifact.json("reports/run.json")
    attempts = pl.read_parquet(artifact.folder / "attempts.parquet")
    groups = {f"by {group}": _groups(group, own) for group, own in metrics["by"].items() if own}
    return {
        "dagster/row_count": attempts.height,
        "accuracy": percent(metrics["greedy"]["value"]),
        "accuracy, boxed and ended": percent(metrics["greedy_strict"]["value"]),
        "accuracy (%)": rounded(100 * metrics["greedy"]["value"]),
        "figures": table(figure_rows(metrics)),
        **groups,
        **run_words(run),
        "outcomes": table(attempts["outcome"].value_counts(sort=True).to_dicts()),
        "answers": table(attempts.select(SHOWN_COLUMNS).head(SHOWN).to_dicts()),
    }


def _groups(group: str, own: dict[str, Any]) -> dg.TableMetadataValue:
    rows = []
    for name, values in own.items():
        figures = {key: each for key, each in values.items() if key != "problems"}
        shown = {
            key: f"{percent(each['value'])} ({between(each['low'], each['high'])})" for key, each in figures.items()
        }
        rows.append({group: name, "problems": values["problems"], **shown})
    return table(rows)
