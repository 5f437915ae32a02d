"""A registered version's figures on suites, in MLflow: on its runs and logged models, each beside the base model's.

Suites are answered before or after a version is registered, and again when they change, so their figures are added to
runs that have ended. Each names the artifact with the answers that it is of, as the data set that it was measured on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ernie_pipeline.registry.opened import ADAPTER_RUN
from ernie_pipeline.registry.run_log import DIGEST_CHARS, OfModel, log_values

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SUITE = "suite_"
"""Begins the names of the assets with answers to a suite."""


@dataclass(frozen=True)
class Measured:
    """One model's figures on a suite, by MLflow's names, and the artifact with the answers that they are of."""

    asset: str
    data_version: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Told:
    """The last value that a logged model has of a figure on a suite, of which answers, and what its run has of it."""

    name: str
    value: float
    asset: str
    digest: str
    in_run: float | None


def digest_of(data_version: str) -> str:
    """As MLflow holds it."""
    return data_version.rpartition(":")[2][:DIGEST_CHARS]


def log_measured(client: "MlflowClient", run_id: str, measured: Mapping[str, Measured]) -> int:
    """Log figures of "base" and "adapter" on a suite to the version's run, the base model's beside it, and the logged
    models that are these runs' outputs; how many there was nothing of, or something else, before."""
    logged = 0
    for side, run in _runs(client, run_id).items():
        for model_id in _models(run) if side in measured else ():
            made = measured[side]
            digest, known = digest_of(made.data_version), {*told_of_suites(client, run, model_id)}
            new = {k: v for k, v in made.figures.items() if Told(k, v, made.asset, digest, v) not in known}
            if new:
                log_values(client, run.info.run_id, metrics=new, of=OfModel(model_id, made.asset, digest))
            logged += len(new)
    return logged


def told_in_registry(client: "MlflowClient", run_id: str) -> Iterator[tuple[str, Told]]:
    """Every figure on a suite that the version with that run, and its base model, have: whose it is, and what."""
    for side, run in _runs(client, run_id).items():
        for model_id in _models(run):
            for told in told_of_suites(client, run, model_id):
                yield side, told


def told_of_suites(client: "MlflowClient", run: "Run", model_id: str) -> list[Told]:
    """The last value of each."""
    metrics = sorted(client.get_logged_model(model_id).metrics or (), key=lambda metric: metric.timestamp)
    last = {metric.key: metric for metric in metrics if (metric.dataset_name or "").startswith(SUITE)}
    return [
        Told(name, each.value, each.dataset_name, each.dataset_digest, run.data.metrics.get(name))
        for name, each in last.items()
    ]


def _runs(client: "MlflowClient", run_id: str) -> dict[str, "Run"]:
    """The version's own, and the base model's beside it; a version from before has none such."""
    run = client.get_run(run_id)
    beside = f"tags.{ADAPTER_RUN} = '{run_id}' and tags.model = 'base'"
    found = [client.get_run(each.info.run_id) for each in client.search_runs([run.info.experiment_id], beside)]
    return {"adapter": run, **({"base": found[0]} if found else {})}


def _models(run: "Run") -> list[str]:
    return [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
