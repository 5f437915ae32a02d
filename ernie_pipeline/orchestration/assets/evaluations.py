"""What `base_evaluation` and `adapter_evaluation` have in common: the same job, with and without an adapter."""

import json
from pathlib import Path

import dagster as dg

from ernie_pipeline.orchestration.assets.math_split import checked_split
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.pages.evaluation import show_evaluation
from ernie_pipeline.orchestration.report import build_or_reuse
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.artifacts import Check
from ernie_pipeline.store.quantized_base import FOLDER


def complete(asset: str) -> dg.AssetCheckSpec:
    """The blocking check that no held-out row was passed over."""
    return dg.AssetCheckSpec(
        "complete", asset=asset, blocking=True, description="Every held-out row that was asked has one graded answer."
    )


def run_evaluation(context: dg.AssetExecutionContext, gpu: GpuResource, adapter: str | None) -> dg.MaterializeResult:
    """Evaluate the base model, or with the artifact of the asset `adapter` on it."""

    def write(work: Work, out: Path) -> list[Check]:
        from ernie_pipeline.evaluation.job import evaluation_job

        base, split = work.made_from.inputs["base_model"], checked_split(work)
        job = evaluation_job(
            work.recipe,
            base,
            Settings.from_environment().store / FOLDER,
            work.folder(adapter) if adapter else None,
            execution=gpu.execution_over(work.recipe.execution),
            limits=gpu.limits(),
            split=split,
            out=out,
            rows=work.rows,
        )
        gpu.run(context, "evaluation", job, unfinished=work.unfinished)
        return [_every_row_answered(out, work.recipe.evaluation.rows)]

    return build_or_reuse(context, write, show_evaluation)


def _every_row_answered(out: Path, asked: int) -> Check:
    """`asked`: evaluation.rows, 0 for all."""
    import polars as pl

    held_out = json.loads((out / "metrics.json").read_text())["validation_rows"]
    wanted = min(asked or held_out, held_out)
    row_ids = pl.read_parquet(out / "predictions.parquet", columns=["row_id"])["row_id"]
    counted = f"{len(row_ids)} graded answers to {wanted} held-out rows"
    return Check("complete", len(row_ids) == wanted and bool(row_ids.is_unique().all()), counted)
