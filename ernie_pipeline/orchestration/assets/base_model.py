"""The model that is fine-tuned: observed, not built."""

import dagster as dg

from ernie_pipeline.orchestration.recipes import each_recipe_observes
from ernie_pipeline.orchestration.report import observation


@each_recipe_observes(
    group_name="sources",
    description="The base model and its tokenizer. Its version is the hub commit, or a hash of its files.",
)
def base_model(context: dg.OpExecutionContext) -> dg.ObserveResult:
    return observation(context)
