"""The two runs of a registration: the adapter's, and beside it its base model's, measured on the same rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ernie_pipeline.registry.figures import log_figures
from ernie_pipeline.registry.notes import base_note
from ernie_pipeline.registry.opened import ADAPTER_RUN, opened_model, opened_run
from ernie_pipeline.registry.registration import RegistrationRequest
from ernie_pipeline.registry.run_log import OfModel, log_dataset, log_picture, log_table, log_values

if TYPE_CHECKING:
    from mlflow import MlflowClient

BASE, ADAPTER = "base", "adapter"
"""Whose figures they are; the tag `model` of their runs."""

OF_BASE = ("quantization.", "evaluation.")
"""Parameters of the base model's measurement too."""

ANSWERS = "answers.json"
"""The table that is logged first, so the one that MLflow's page of tables opens with."""


def log_adapter(client: "MlflowClient", run_id: str, model_id: str, request: RegistrationRequest) -> None:
    """What the adapter's run holds."""
    log_dataset(client, run_id, request.dataset)  # before the figures, which name it
    _log_answers(client, run_id, ADAPTER, request)
    compared = {f"comparison/{name}": value for name, value in request.comparison.items()}
    log_figures(client, run_id, {**request.figures[ADAPTER], **compared}, _on_held_out(model_id, request))
    log_values(client, run_id, params=request.params, metrics=request.metrics, curve=request.curve)
    for name, rows in request.tables.items():
        log_table(client, run_id, f"{name}.json", rows)
    for name, picture in request.pictures.items():
        log_picture(client, run_id, f"{name}.png", picture)
    client.log_dict(run_id, dict(request.recipe), "recipe.json")
    client.log_artifact(run_id, str(request.predictions))


def _log_answers(client: "MlflowClient", run_id: str, side: str, request: RegistrationRequest) -> None:
    if rows := request.answers.get(side):
        log_table(client, run_id, ANSWERS, rows)


@contextmanager
def base_measured(
    client: "MlflowClient", experiment_id: str, adapter_run: str, request: RegistrationRequest
) -> Iterator[None]:
    """The base model as a run beside the adapter's, and as a logged model: the same figures by the same names.

    Not as a run inside: MLflow's page folds these away, and its charts then show the adapter alone.
    """
    about = {key: value for key, value in request.about.items() if key != "trained_on"}
    request = replace(request, about=about)
    name, note = f"{about['base_model']} (base model)", base_note(request.run_name)
    tags = {ADAPTER_RUN: adapter_run, **run_tags(request, BASE)}
    external = {"mlflow.model.isExternal": "true", **run_tags(request, BASE)}  # it has no files here
    with (
        opened_run(client, experiment_id, name, note, tags) as run_id,
        opened_model(client, experiment_id, run_id, f"{request.model_name}-base", "base model", external) as logged,
    ):
        log_dataset(client, run_id, request.dataset, ["evaluation"])
        params = {key: value for key, value in request.params.items() if key in about or key.startswith(OF_BASE)}
        log_values(client, run_id, params=params)
        _log_answers(client, run_id, BASE, request)
        log_figures(client, run_id, request.figures[BASE], _on_held_out(logged.model_id, request))
        client.finalize_logged_model(logged.model_id, "READY")
        yield


def _on_held_out(model_id: str, request: RegistrationRequest) -> OfModel:
    return OfModel(model_id, *request.dataset.named(request.dataset.eval_path))


def run_tags(request: RegistrationRequest, model: str) -> dict[str, str]:
    """What is searched by, in few words."""
    return {"model": model, **request.about, **request.tags}
