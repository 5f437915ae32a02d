"""What a process that loads the model has to be told of it, as plain values of JSON's types."""

from typing import Any

from ernie_pipeline.engines import choose_engine
from ernie_pipeline.engines.checkpoint import pinned_checkpoint
from ernie_pipeline.recipe import BaseModelRef, Quantization


def base_job(engine: str, base: BaseModelRef, version: str, quantization: Quantization) -> dict[str, Any]:
    """The keys `engine`, `base` {name, checkpoint, revision} and `quantization`; `version` is the base model's."""
    checkpoint, revision = pinned_checkpoint(base.name, version)
    return {
        "engine": choose_engine(engine),
        "base": {"name": base.name, "checkpoint": checkpoint, "revision": revision},
        "quantization": quantization.model_dump(mode="json"),
    }
