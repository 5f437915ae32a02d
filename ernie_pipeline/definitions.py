"""Binds assets, automation and resources into the code location. It holds no logic."""

from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.assets.adapter_evaluation import adapter_evaluation
from ernie_pipeline.orchestration.assets.base_evaluation import base_evaluation
from ernie_pipeline.orchestration.assets.base_model import base_model
from ernie_pipeline.orchestration.assets.benchmark_sets import benchmark_sets
from ernie_pipeline.orchestration.assets.math_split import math_split
from ernie_pipeline.orchestration.assets.nemotron_source import nemotron_source
from ernie_pipeline.orchestration.assets.published_model import published_model
from ernie_pipeline.orchestration.assets.qlora_adapter import qlora_adapter
from ernie_pipeline.orchestration.assets.raw_nemotron import raw_nemotron
from ernie_pipeline.orchestration.assets.recipes_compared import recipes_compared
from ernie_pipeline.orchestration.assets.registered_model import registered_model
from ernie_pipeline.orchestration.assets.suites import suite_assets, suite_sets
from ernie_pipeline.orchestration.assets.verified_solutions import verified_solutions
from ernie_pipeline.orchestration.automation import RECIPES, SETTINGS, automation_of
from ernie_pipeline.orchestration.executor import executor
from ernie_pipeline.orchestration.gpu_defaults import gpu_resource
from ernie_pipeline.orchestration.opening import told_when_opened
from ernie_pipeline.orchestration.recipes import Made, RecipeAssets
from ernie_pipeline.orchestration.told import told
from ernie_pipeline.staleness.suites import suites_among

SOURCES: list[Made] = [nemotron_source, base_model, benchmark_sets]
BUILT: list[Made] = [
    raw_nemotron,
    math_split,
    verified_solutions,
    qlora_adapter,
    base_evaluation,
    adapter_evaluation,
    registered_model,
    published_model,
]
with told_when_opened():
    GPU = gpu_resource(SETTINGS.gpu)


def assets_of(recipe: RecipeAssets) -> list[Any]:
    """The sources that the recipe observes and the assets that it asks for, these with their version."""
    suites = suites_among(recipe.shown)
    built = [make(recipe) for make in (*BUILT, *suite_assets(suites)) if make.name in recipe.shown]
    versions = {recipe.key(name): recipe.versions.get(name) for name in recipe.shown}
    return [
        *(make(recipe) for make in (*SOURCES, *suite_sets(suites))),
        *dg.map_asset_specs(lambda spec: spec.replace_attributes(code_version=versions[spec.key]), built),
    ]


AUTOMATIONS = [automation_of(recipe, SETTINGS) for recipe in RECIPES]
defs = dg.Definitions(
    assets=[
        *(asset for recipe in RECIPES for asset in assets_of(recipe)),
        *([recipes_compared(RECIPES)] if len(RECIPES) > 1 else []),
    ],
    jobs=[each.job for each in AUTOMATIONS],
    schedules=[each.schedule for each in AUTOMATIONS],
    sensors=[each.sensor for each in AUTOMATIONS],
    executor=executor,
    resources={"gpu": GPU},
    loggers={"console": dg.colored_console_logger, "told": told},  # Dagster's own unless a run asks for another
)
