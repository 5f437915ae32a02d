"""What the registry says of a model's figures, beside what they are."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ernie_pipeline.registry.figures import METRICS, TABLE, from_rows
from ernie_pipeline.registry.opened import ADAPTER_RUN
from ernie_pipeline.registry.run_log import read_table
from ernie_pipeline.registry.verification.step import Step, differs, passed
from ernie_pipeline.registry.verification.version import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NAME = "registry figures"
MEASURED = ("comparison/", "by_kind/")
"""What else by these names would be a figure that nothing measured."""
ADAPTER, BASE = "adapter", "base"
BEFORE_BOTH_HAD_RUNS = "from before the base model had a run of its own, or altered; register the adapter again"
TOLERANCE = 1e-9
"""Relative: what another version of a library may round otherwise."""


def check_figures(
    client: "MlflowClient", version: Version, wanted: Mapping[str, float], tags: Mapping[str, str]
) -> Step:
    """Compare the metrics and the table of figures of the version's run, those of the base model's beside it, the
    metrics of the logged model of each, and the version's tags, with `wanted` and `tags`.

    `wanted`: "base.accuracy", "adapter.accuracy", "comparison.gain" and so on, all that there are. Passed over are a
    tag and a table that the version has not, from before they were recorded; metrics that it has, although only
    `METRICS` are recorded since, are held against their figures too.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _compared(client, version, wanted, tags)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return differs(NAME, f"the registry has no figures of it: {' '.join(str(error).split())[:200]}")


def _compared(client: "MlflowClient", version: Version, wanted: Mapping[str, float], tags: Mapping[str, str]) -> Step:
    run = client.get_run(version.run_id)
    if run.data.tags.get("model") != ADAPTER:
        return differs(NAME, f"its run has no tag model = {ADAPTER}: {version.uri} is {BEFORE_BOTH_HAD_RUNS}")
    for side in _sides(client, version, run, wanted):
        if wrong := _first_difference(side):
            name, said, found = wrong
            return differs(NAME, f"{side.place} {name} is {said} in the registry, and {found} by the stored answers")
    there = {name: value for name, value in tags.items() if name in version.tags}
    for name, value in there.items():
        tag = version.tags[name]
        if tag != value and not same(_number(tag), _number(value)):
            return differs(NAME, f"the tag {name} is {tag!r} in the registry, and {value!r} by the stored answers")
    return passed(NAME, f"{len(wanted)} figures and {len(there)} tags are what the stored answers give")


@dataclass(frozen=True)
class _Side:
    """Figures as one place in the registry tells them, and as they should be. `alone`: nothing else may stand there."""

    place: str
    told: Mapping[str, float | None]
    wanted: Mapping[str, float]
    alone: bool = False


def _sides(client: "MlflowClient", version: Version, run: "Run", wanted: Mapping[str, float]) -> Iterator[_Side]:
    """The adapter's run has the comparison and the adapter's figures by their bare names, a run beside it the base's;
    the logged model of each has the same as its run."""
    bare = {name: name.removeprefix(f"{ADAPTER}.").replace(".", "/") for name in wanted}
    own = {bare[name]: value for name, value in wanted.items() if not name.startswith(f"{BASE}.")}
    yield from _run_sides(client, run, own)
    base = {
        name.removeprefix(f"{BASE}.").replace(".", "/"): value
        for name, value in wanted.items()
        if name.startswith(f"{BASE}.")
    }
    beside = f"tags.{ADAPTER_RUN} = '{version.run_id}' and tags.model = '{BASE}'"
    runs = [client.get_run(found.info.run_id) for found in client.search_runs([run.info.experiment_id], beside)]
    if not runs:
        yield _Side("the base model's metric", {}, base)
    for found in runs:
        yield from _run_sides(client, found, base, "the base model's ")


def _run_sides(client: "MlflowClient", run: "Run", wanted: Mapping[str, float], whose: str = "") -> Iterator[_Side]:
    """Of the run and of its logged models: a version in an SQL database does not say its model, but its run does."""
    names = {name for name in wanted if name in METRICS or name in run.data.metrics}
    history = {name: _last(client, run.info.run_id, name) for name in names}
    yield _Side(f"{whose}metric", run.data.metrics, _some(wanted, names))
    yield _Side(f"the history of {whose}metric", history, _some(wanted, names))
    logged = [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
    for model_id in logged or [None]:
        told = _of_model(client, model_id)
        yield _Side(f"{whose}logged model's metric", told, _some(wanted, {*names, *told}))
    if rows := read_table(client, run.info.run_id, TABLE):
        yield _Side(f"{whose}table {TABLE}:", from_rows(rows), wanted, alone=True)


def _some(wanted: Mapping[str, float], names: set[str]) -> dict[str, float]:
    return {name: value for name, value in wanted.items() if name in names}


def _first_difference(side: _Side) -> tuple[str, str, str] | None:
    for name in sorted({*side.wanted, *(name for name in side.told if side.alone or name.startswith(MEASURED))}):
        said, found = side.told.get(name), side.wanted.get(name)
        if not same(said, found):
            return name, "nothing" if said is None else repr(said), "nothing" if found is None else repr(found)
    return None


def _last(client: "MlflowClient", run_id: str, name: str) -> float | None:
    """Of several values the first that is another than the last, if there is one: nothing is measured twice."""
    values = [metric.value for metric in client.get_metric_history(run_id, name)]
    return next((value for value in values if value != values[-1]), values[-1]) if values else None


def _of_model(client: "MlflowClient", model_id: str | None) -> dict[str, float]:
    """{} where there is none: it then differs in every figure."""
    metrics = client.get_logged_model(model_id).metrics if model_id else None
    return {metric.key: metric.value for metric in metrics or ()}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other and one is not None
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
