"""The model that is fine-tuned: observed, not built."""

import dagster as dg

from ernie_pipeline.orchestration.report import observation


@dg.observable_source_asset(
    group_name="sources",
    description="The base model and its tokenizer. Its version is the hub commit, or a hash of its files.",
)
def base_model(context: dg.OpExecutionContext) -> dg.ObserveResult:
    return observation(context, "base_model")
