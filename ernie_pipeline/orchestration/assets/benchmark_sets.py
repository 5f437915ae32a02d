"""The benchmark sets that no training row may come from: observed, not built."""

import dagster as dg

from ernie_pipeline.orchestration.report import observation


@dg.observable_source_asset(
    group_name="sources",
    description="The benchmark sets that the recipe names. The data version covers each one's hub commit or content.",
)
def benchmark_sets(context: dg.OpExecutionContext) -> dg.ObserveResult:
    return observation(context, "benchmark_sets")
