"""Keeps Dagster's stale marks in agreement with the plan, for what Dagster cannot see by itself.

Dagster marks an asset by its events: the version of its code and of its inputs that the last one names. It knows of no
file that changed, no artifact that was deleted or altered, and none that was built elsewhere. The events made here say
so; they belong to no run, and no work stands behind them.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.origin import origin, reason
from ernie_pipeline.orchestration.recipes import RecipeAssets
from ernie_pipeline.orchestration.report import CODE, DATA, INPUT, observed, version_tags
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import AssetPlan, RefreshPlan
from ernie_pipeline.staleness.stages import all_stages

POINTER = "dagster/input_event_pointer/"
"""Dagster's own tag of the event that an input was read from."""


def report_sources(instance: dg.DagsterInstance, plan: RefreshPlan, chain: Chain, recipe: RecipeAssets) -> None:
    """Observe each source whose version is not the one that was observed last."""
    for name, version in plan.sources.items():
        last = instance.fetch_observations(recipe.key(name), limit=1).records
        if not last or _tags(last[0].asset_observation).get(DATA) != version:
            instance.report_runless_asset_event(observed(chain, recipe, name))


def report_artifacts(instance: dg.DagsterInstance, plan: RefreshPlan, chain: Chain, recipe: RecipeAssets) -> None:
    """Mark what is fresh as fresh and what is stale as stale. Only while no run is under way: it reports for itself."""
    recorded: dict[str, Mapping[str, str]] = {name: {DATA: version} for name, version in plan.sources.items()}
    for asset in plan.assets:
        event = instance.get_latest_materialization_event(recipe.key(asset.asset))
        recorded[asset.asset] = _tags(event.asset_materialization if event else None)
        if correction := _correction(asset, chain, recipe, recorded):
            instance.report_runless_asset_event(correction)
            recorded[asset.asset] = _tags(correction)


def _correction(
    asset: AssetPlan, chain: Chain, recipe: RecipeAssets, recorded: Mapping[str, Mapping[str, str]]
) -> dg.AssetMaterialization | None:
    """The event, if one is needed, after which Dagster sees the asset as the plan does."""
    tags = recorded[asset.asset]
    if asset.state == "fresh":
        artifact = chain.artifact(asset.asset)
        above = all_stages(chain.recipe)[asset.asset].inputs
        unread = {i: recorded[i][DATA] for i in above if i not in artifact.manifest["inputs"] and DATA in recorded[i]}
        wanted = {DATA: artifact.data_version, **version_tags(artifact.manifest, unread, recipe)}
        if any(tags.get(name) != value for name, value in wanted.items()):
            no_events = {f"{POINTER}{recipe.key(name).to_user_string()}": "NULL" for name in above}
            told = reason(artifact, chain.store) | origin(artifact)
            return _found_in_the_store(recipe.key(asset.asset), told, wanted | no_events)
    elif asset.state in ("stale", "missing") and _looks_fresh(asset, chain, recipe, recorded):
        return dg.AssetMaterialization(
            recipe.key(asset.asset),
            description="No work was done: the plan found that this asset is stale.",
            metadata={"why": "; ".join(asset.reasons)},
            tags={**tags, CODE: "; ".join(asset.reasons)},
        )
    return None


def _found_in_the_store(key: dg.AssetKey, metadata: Mapping[str, Any], tags: dict[str, str]) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        key,
        description="No work was done: the artifact that the recipe asks for stands in the store.",
        metadata=metadata,
        tags=tags,
    )


def _looks_fresh(
    asset: AssetPlan, chain: Chain, recipe: RecipeAssets, recorded: Mapping[str, Mapping[str, str]]
) -> bool:
    """Whether Dagster would call it fresh: its last event names today's code and its inputs' last versions."""
    tags, inputs = recorded[asset.asset], all_stages(chain.recipe)[asset.asset].inputs
    return tags.get(CODE) == chain.declared_version(asset.asset) and all(
        tags.get(f"{INPUT}{recipe.key(name).to_user_string()}") == recorded[name].get(DATA) for name in inputs
    )


def _tags(event: dg.AssetMaterialization | dg.AssetObservation | None) -> dict[str, str]:
    return dict(event.tags or {}) if event else {}
