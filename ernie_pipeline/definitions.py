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
from ernie_pipeline.orchestration.assets.registered_model import registered_model
from ernie_pipeline.orchestration.assets.suites import suite_assets, suite_sets
from ernie_pipeline.orchestration.assets.verified_solutions import verified_solutions
from ernie_pipeline.orchestration.automation import SETTINGS, VERSIONS, ernie_refresh, refresh, source_changed
from ernie_pipeline.orchestration.executor import executor
from ernie_pipeline.orchestration.gpu_defaults import gpu_resource
from ernie_pipeline.orchestration.opening import told_when_opened
from ernie_pipeline.orchestration.told import told
from ernie_pipeline.staleness.published import PUBLISHED
from ernie_pipeline.staleness.suites import suites_among

SUITES = suites_among(VERSIONS)
SOURCES: list[Any] = [nemotron_source, base_model, benchmark_sets, *suite_sets(SUITES)]
BUILT: list[dg.AssetsDefinition] = [
    raw_nemotron,
    math_split,
    verified_solutions,
    qlora_adapter,
    base_evaluation,
    adapter_evaluation,
    registered_model,
    *suite_assets(SUITES),
    *([published_model] if PUBLISHED in VERSIONS else []),
]
with told_when_opened():
    GPU = gpu_resource(SETTINGS.gpu)

defs = dg.Definitions(
    assets=[
        *SOURCES,
        *dg.map_asset_specs(
            lambda spec: spec.replace_attributes(code_version=VERSIONS[spec.key.to_user_string()]), BUILT
        ),
    ],
    jobs=[refresh],
    schedules=[ernie_refresh],
    sensors=[source_changed],
    executor=executor,
    resources={"gpu": GPU},
    loggers={"console": dg.colored_console_logger, "told": told},  # Dagster's own unless a run asks for another
)
