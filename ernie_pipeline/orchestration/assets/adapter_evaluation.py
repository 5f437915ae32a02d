"""The adapter on its base model, measured on the same held-out rows."""

import dagster as dg

from ernie_pipeline.orchestration.assets.evaluations import complete, run_evaluation
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.recipes import each_recipe
from ernie_pipeline.orchestration.report import OWNERS


@each_recipe(
    deps=["math_split", "base_model", "qlora_adapter"],
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool="gpu",
    description="The adapter on the held-out rows: loss on the completions, greedy answers, grades, accuracy.",
    check_specs=[complete("adapter_evaluation")],
)
def adapter_evaluation(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    return run_evaluation(context, gpu, adapter="qlora_adapter")
