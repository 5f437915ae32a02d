"""A registered version's figures on suites, in MLflow: on its runs and logged models, each beside the base model's.

Suites are answered before or after a version is registered, and again when they change, so their figures are added to
runs that have ended. Each names the artifact with the answers that it is of, as the data set that it was measured on.
The metrics are the share of right greedy answers and what the most samples came to; all figures are in a table.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ernie_pipeline.registry.figures import HIGH, LOW, as_rows, from_rows
from ernie_pipeline.registry.opened import ADAPTER_RUN
from ernie_pipeline.registry.run_log import DIGEST_CHARS, OfModel, log_table, log_values, read_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SUITE = "suite_"
"""Begins the names of the assets with answers to a suite."""
OF_MODEL, METRIC, TABLE = "logged model's metric", "metric", "table's"
"""The places of a figure."""

SAMPLES = re.compile(r"(?<=_at_)\d+$")
"""Of how many samples a figure is, in its name."""


@dataclass(frozen=True)
class Measured:
    """One model's figures on a suite, by MLflow's names, and the artifact with the answers that they are of."""

    asset: str
    data_version: str
    figures: Mapping[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        """Those by which runs are sorted and charted."""
        whole = [name for name in self.figures if not name.endswith((LOW, HIGH))]
        of_most = {SAMPLES.sub("", name): name for name in sorted(whole, key=_samples)}
        return {name: self.figures[name] for name in of_most.values()}


def _samples(name: str) -> int:
    found = SAMPLES.search(name)
    return int(found[0]) if found else 0


def table_of(asset: str) -> str:
    """The file of the table with all figures of "suite_gsm8k_adapter", and of the base model's beside it:
    "suite_gsm8k.json"."""
    return f"{asset.rpartition('_')[0]}.json"


@dataclass(frozen=True)
class Told:
    """What one place in the registry says of a figure on a suite, and of which answers it says so."""

    place: str
    name: str
    value: float | None
    asset: str
    digest: str


def digest_of(data_version: str) -> str:
    """As MLflow holds it."""
    return data_version.rpartition(":")[2][:DIGEST_CHARS]


def log_measured(client: "MlflowClient", run_id: str, measured: Mapping[str, Measured]) -> None:
    """Log figures of "base" and "adapter" on a suite to the version's run, the base model's beside it, and the logged
    models that are these runs' outputs, unless these say just that already."""
    for side, run in _runs(client, run_id).items():
        for model_id in _models(run) if side in measured else ():
            made = measured[side]
            told = partial(_told, made.asset, digest_of(made.data_version))
            wanted = [*told(TABLE, made.figures), *told(METRIC, made.metrics), *told(OF_MODEL, made.metrics)]
            if not {*wanted} <= {*told_of_suites(client, run, model_id)}:
                of = OfModel(model_id, made.asset, digest_of(made.data_version))
                log_table(client, run.info.run_id, table_of(made.asset), as_rows(made.figures))
                log_values(client, run.info.run_id, metrics=made.metrics, of=of)


def told_in_registry(client: "MlflowClient", run_id: str) -> Iterator[tuple[str, Told]]:
    """Every figure on a suite that the version with that run, and its base model, have: whose it is, and what."""
    for side, run in _runs(client, run_id).items():
        for model_id in _models(run):
            for told in told_of_suites(client, run, model_id):
                yield side, told


def told_of_suites(client: "MlflowClient", run: "Run", model_id: str) -> list[Told]:
    """The last value that the logged model has of each metric, what its run has of it, and what is in the tables."""
    metrics = sorted(client.get_logged_model(model_id).metrics or (), key=lambda metric: metric.timestamp)
    last = {metric.key: metric for metric in metrics if (metric.dataset_name or "").startswith(SUITE)}
    told = [
        Told(place, name, value, each.dataset_name, each.dataset_digest)
        for name, each in last.items()
        for place, value in ((OF_MODEL, each.value), (METRIC, run.data.metrics.get(name)))
    ]
    newest = {each.dataset_name: each.dataset_digest for each in sorted(last.values(), key=lambda each: each.timestamp)}
    for asset, digest in newest.items():
        if rows := read_table(client, run.info.run_id, table_of(asset)):
            told += _told(asset, digest, TABLE, from_rows(rows))
    return told


def _told(asset: str, digest: str, place: str, figures: Mapping[str, float]) -> list[Told]:
    return [Told(place, name, value, asset, digest) for name, value in figures.items()]


def _runs(client: "MlflowClient", run_id: str) -> dict[str, "Run"]:
    """The version's own, and the base model's beside it; a version from before has none such."""
    run = client.get_run(run_id)
    beside = f"tags.{ADAPTER_RUN} = '{run_id}' and tags.model = 'base'"
    found = [client.get_run(each.info.run_id) for each in client.search_runs([run.info.experiment_id], beside)]
    return {"adapter": run, **({"base": found[0]} if found else {})}


def _models(run: "Run") -> list[str]:
    return [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
