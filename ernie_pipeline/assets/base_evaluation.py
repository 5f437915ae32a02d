"""The base model, measured on the held-out rows."""

import dagster as dg

from ernie_pipeline.assets.evaluations import complete, run_evaluation
from ernie_pipeline.assets.report import OWNERS
from ernie_pipeline.launch.gpu import GpuResource


@dg.asset(
    deps=["math_split", "base_model"],
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool="gpu",
    description="The 4-bit base model on the held-out rows: validation loss, greedy answers, grades, accuracy.",
    check_specs=[complete("base_evaluation")],
)
def base_evaluation(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    return run_evaluation(context, gpu, adapter=None)
