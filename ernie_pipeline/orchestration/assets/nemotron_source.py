"""The source of the rows: observed, not built."""

import dagster as dg

from ernie_pipeline.orchestration.recipes import each_recipe_observes
from ernie_pipeline.orchestration.report import observation


@each_recipe_observes(
    group_name="sources",
    description="Where the raw rows come from. Its data version is the hub commit, or a hash of the file's content.",
)
def nemotron_source(context: dg.OpExecutionContext) -> dg.ObserveResult:
    return observation(context)
