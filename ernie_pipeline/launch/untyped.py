"""Jobs that are still dictionaries. This file goes when training and evaluation take typed ones."""

from typing import Any

from pydantic import RootModel

from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.utils.reporter import Reporter


class UntypedJob(RootModel[dict[str, Any]]):
    """A dictionary of values of JSON's types."""


def with_limits(job: dict[str, Any], limits: DeviceLimits, checkpoint_s: float, bases: str) -> UntypedJob:
    """The job with its key `gpu`."""
    return UntypedJob({**job, "gpu": {**limits.model_dump(), "checkpoint_s": checkpoint_s, "bases": bases}})


def train(job: UntypedJob, report: Reporter) -> None:
    """`training.train.train`."""
    from ernie_pipeline.training.train import train

    train(job.root, report)


def evaluate(job: UntypedJob, report: Reporter) -> None:
    """`evaluation.evaluate.evaluate`."""
    from ernie_pipeline.evaluation.evaluate import evaluate

    evaluate(job.root, report)
