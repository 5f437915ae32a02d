"""What `base_evaluation` and `adapter_evaluation` have in common: the same job, with and without an adapter."""

from pathlib import Path

import dagster as dg

from ernie_pipeline.assets.report import Face, build_or_reuse, check, model_job, table
from ernie_pipeline.launch.gpu import GpuResource
from ernie_pipeline.store.artifacts import Artifact
from ernie_pipeline.store.chain import Chain

SHOWN_PREDICTIONS = 20
SHOWN_COLUMNS = ("question", "gold", "prediction", "outcome")


def complete(asset: str) -> dg.AssetCheckSpec:
    """The blocking check that no held-out row was passed over."""
    return dg.AssetCheckSpec(
        "complete", asset=asset, blocking=True, description="Every held-out row that was asked has one graded answer."
    )


def run_evaluation(context: dg.AssetExecutionContext, gpu: GpuResource, adapter: str | None) -> dg.MaterializeResult:
    """Evaluate the base model, or with the artifact of the asset `adapter` on it."""

    def write(chain: Chain, out: Path) -> None:
        job = {
            **model_job(chain),
            "adapter": str(chain.artifact(adapter).folder / "adapter") if adapter else None,
            "evaluation": chain.recipe.evaluation.model_dump(mode="json"),
            "out": str(out),
        }
        gpu.run(context, "ernie_pipeline.evaluation", job)

    return build_or_reuse(context, write, _show)


def _show(artifact: Artifact) -> Face:
    import polars as pl

    metrics = artifact.json("metrics.json")
    predictions = pl.read_parquet(artifact.folder / "predictions.parquet")
    asked = artifact.manifest["recipe"]["evaluation"]["rows"] or metrics["validation_rows"]
    wanted = min(asked, metrics["validation_rows"])
    outcomes = predictions["outcome"].value_counts(sort=True)
    return Face(
        metadata={
            "validation loss": metrics["validation_loss"],
            "accuracy": metrics["accuracy"],
            "metrics": table([{"metric": name, "value": float(value)} for name, value in metrics.items()]),
            "outcomes": table(outcomes.to_dicts()),
            "predictions": table(predictions.select(SHOWN_COLUMNS).head(SHOWN_PREDICTIONS).to_dicts()),
        },
        checks=[
            check(
                "complete",
                len(predictions) == wanted and predictions["row_id"].is_unique().all(),
                f"{len(predictions)} graded answers to {wanted} held-out rows",
            )
        ],
    )
