"""What a process that loads the model has to be told of it, as plain values of JSON's types."""

from typing import Any

from ernie_pipeline.models.checkpoint.version import pinned_checkpoint
from ernie_pipeline.recipe.sections import BaseModelRef, Quantization


def base_job(engine: str, base: BaseModelRef, version: str, quantization: Quantization) -> dict[str, Any]:
    """The keys `engine`, `base` {name, checkpoint, revision, version} and `quantization`; `version`: the base model's.

    `engine` may be "auto": it is the process that loads the model that knows what there is, see `choose_engine`.
    """
    checkpoint, revision = pinned_checkpoint(base.name, version)
    return {
        "engine": engine,
        "base": {"name": base.name, "checkpoint": checkpoint, "revision": revision, "version": version},
        "quantization": quantization.model_dump(mode="json"),
    }
