"""The base model, measured on the held-out rows."""

import dagster as dg

from ernie_pipeline.orchestration.assets.evaluations import complete, run_evaluation
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS


@each_recipe(
    deps=["math_split", "base_model"],
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool="gpu",
    description="The 4-bit base model on the held-out rows: loss on the completions, greedy answers, grades, accuracy.",
    check_specs=[complete("base_evaluation")],
)
def base_evaluation(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    return run_evaluation(context, gpu, adapter=None)
