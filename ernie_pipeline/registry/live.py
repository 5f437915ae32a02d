"""A training, seen in MLflow while it goes on: a run that the adapter's own replaces when that is registered.

It is there to be watched. So it costs a short training nothing: MLflow, whose import alone takes a second of a CPU, is
asked once there is something to watch for a while. And where it does not answer, the training goes on without it.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_pipeline.registry.opened import open_run, status_after, sweep_killed
from ernie_pipeline.registry.run_log import in_training, log_values
from ernie_pipeline.registry.tracking import IMPATIENT, connected, ensure_experiment
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINING = "training"
"""The tag `model` of such a run."""

BEGINS_AFTER_S = 10.0
"""How long a training goes on before it is seen; what it told before is then shown with the rest."""

AGAIN_AFTER_S = 300.0
"""When MLflow is asked again after it did not answer."""

NO_FIGURES = ("step", "max_steps", "seconds_left")
"""What tells how far the training is."""

NOTE = (
    "A training while it goes on. When its adapter is registered, the adapter's run has the same curve and this one "
    "is deleted; one that FAILED or was KILLED stays."
)


@dataclass(frozen=True)
class Watched:
    """What is trained, and where that is seen; `fingerprint`: that of the adapter, `params`: as in the recipe."""

    tracking_uri: str
    artifact_root: Path | None
    experiment: str
    model_name: str
    fingerprint: str
    params: Mapping[str, str | int | float]
    tags: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def live_training(
    watched: Watched, warn: Callable[[str], None], begins_after_s: float = BEGINS_AFTER_S
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What takes the figures of a step, {"step": 10, "loss": 0.5}, to MLflow, as training/loss.

    The run begins with the first figures after `begins_after_s`; a training that ends before has none. It ends as the
    block does: FINISHED, FAILED or KILLED. `warn` is told, once, that MLflow does not take them.
    """
    live = _Live(watched, warn, begins_after_s)
    try:
        yield live.tell
    except BaseException as error:
        live.end(status_after(error))
        raise
    live.end("FINISHED")


def drop_live(client: "MlflowClient", experiment_id: str, fingerprint: str) -> None:
    """Delete the finished runs of the training of the adapter with that fingerprint."""
    found = f"tags.fingerprint = '{fingerprint}' and tags.model = '{TRAINING}' and attributes.status = 'FINISHED'"
    for run in client.search_runs([experiment_id], found):
        client.delete_run(run.info.run_id)


class _Live:
    """The run, None before it begins. What MLflow refuses is kept, and shown when it is asked again.

    MLflow is connected anew each time: meanwhile its address stands in the environment, where a training's processes
    would find it.
    """

    def __init__(self, watched: Watched, warn: Callable[[str], None], begins_after_s: float):
        self.watched, self.warn = watched, warn
        self.ask_at = time.monotonic() + begins_after_s
        self.run_id: str | None = None
        self.warned = False
        self.untold: list[dict[str, Any]] = []

    def tell(self, values: Mapping[str, Any]) -> None:
        """Figures of one step; what is none, such as the time of the end, is passed over."""
        if not isinstance(values.get("step"), int):
            return
        figures = {name: value for name, value in values.items() if _is_figure(value) and name not in NO_FIGURES}
        self.untold.append(in_training({**figures, "step": values["step"]}))
        if time.monotonic() >= self.ask_at:
            self._ask(self._show)

    def _show(self, client: "MlflowClient") -> None:
        if self.run_id is None:
            self._begin(client)
        log_values(client, str(self.run_id), curve=self.untold)
        self.untold.clear()

    def _begin(self, client: "MlflowClient") -> None:
        watched = self.watched
        name = f"{watched.model_name} {watched.fingerprint[:8]} (training)"
        tags = {"model": TRAINING, "fingerprint": watched.fingerprint, **watched.tags}
        experiment_id = ensure_experiment(client, watched.experiment, watched.artifact_root)
        sweep_killed(client, experiment_id, watched.model_name, watched.fingerprint)
        self.run_id = open_run(client, experiment_id, name, NOTE, tags)
        log_values(client, self.run_id, params=watched.params)

    def end(self, status: str) -> None:
        if run_id := self.run_id:
            self._ask(self._show)
            self._ask(lambda client: client.set_terminated(run_id, status))

    def _ask(self, what: Callable[["MlflowClient"], None]) -> None:
        try:
            with connected(self.watched.tracking_uri, IMPATIENT) as client:
                what(client)
        except PipelineError as error:
            self.ask_at = time.monotonic() + AGAIN_AFTER_S
            if not self.warned:
                self.warn(f"the training is not seen in MLflow while it goes on: {error}")
            self.warned = True


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
