"""The source of the rows: observed, not built."""

import dagster as dg

from ernie_pipeline.orchestration.report import observation


@dg.observable_source_asset(
    group_name="sources",
    description="Where the raw rows come from. Its data version is the hub commit, or a hash of the file's content.",
)
def nemotron_source(context: dg.OpExecutionContext) -> dg.ObserveResult:
    return observation(context, "nemotron_source")
