"""Binds assets and resources into the code location. It holds no logic."""

import dagster as dg

from ernie_pipeline.assets.adapter_evaluation import adapter_evaluation
from ernie_pipeline.assets.base_evaluation import base_evaluation
from ernie_pipeline.assets.base_model import base_model
from ernie_pipeline.assets.math_split import math_split
from ernie_pipeline.assets.nemotron_source import nemotron_source
from ernie_pipeline.assets.qlora_adapter import qlora_adapter
from ernie_pipeline.assets.raw_nemotron import raw_nemotron
from ernie_pipeline.assets.registered_model import registered_model
from ernie_pipeline.launch.gpu import GpuResource

defs = dg.Definitions(
    assets=[
        nemotron_source,
        base_model,
        raw_nemotron,
        math_split,
        qlora_adapter,
        base_evaluation,
        adapter_evaluation,
        registered_model,
    ],
    resources={"gpu": GpuResource.configure_at_launch()},
)
