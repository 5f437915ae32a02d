"""The recipes of the code location side by side. There is this asset only where there are several."""

import hashlib
import json
from collections.abc import Sequence

import dagster as dg

from ernie_pipeline.orchestration.pages.compared import look_at, show_compared, versions_of
from ernie_pipeline.orchestration.recipes import COMPARED, RecipeAssets
from ernie_pipeline.orchestration.report import OWNERS, pipeline_errors_as_failures
from ernie_pipeline.recipe.budget import Budget

READ = ("math_split", "base_evaluation", "adapter_evaluation", "registered_model")


def recipes_compared(recipes: Sequence[RecipeAssets]) -> dg.AssetsDefinition:
    """It keeps nothing: what it shows is read from the recipes' artifacts in a second."""

    @dg.asset(
        name=COMPARED,
        deps=[recipe.key(asset) for recipe in recipes for asset in READ],
        group_name="compared",
        owners=OWNERS,
        description=f"The models of {', '.join(recipe.name for recipe in recipes)}: right answers before and after, "
        "rows, losses and cost.",
    )
    def built(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with pipeline_errors_as_failures():
            price = Budget.from_environment().price
            compared = [look_at(recipe, price) for recipe in recipes]
            shown = show_compared(compared)
        for each in compared:
            if each.missing:
                context.log.warning(f"{each.name} is not compared: {each.missing}")
        version = hashlib.sha256(json.dumps(versions_of(compared), sort_keys=True).encode()).hexdigest()[:16]
        return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(version))

    return built
