"""The benchmark sets that no training row may come from: observed, not built."""

import dagster as dg

from ernie_pipeline.orchestration.recipes import each_recipe_observes
from ernie_pipeline.orchestration.report import observation


@each_recipe_observes(
    group_name="sources",
    description="The benchmark sets that the recipe names. The data version covers each one's hub commit or content.",
)
def benchmark_sets(context: dg.OpExecutionContext) -> dg.ObserveResult:
    return observation(context)
