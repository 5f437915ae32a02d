"""What a registration opens in MLflow, runs and logged models, and closes again whatever happens."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import ernie_pipeline

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

ADAPTER_RUN = "adapter_run"
"""Tag of the base model's run: the id of the adapter's run beside which it stands."""

GIT_SECONDS = 10


def open_run(client: "MlflowClient", experiment_id: str, name: str, note: str, tags: Mapping[str, str]) -> str:
    """The id of a new run with the description `note` (Markdown), which says where it comes from."""
    source = {"mlflow.source.name": "ernie_pipeline", "mlflow.source.type": "JOB", **_commit()}
    own = {**source, "mlflow.note.content": note, **tags}
    return str(client.create_run(experiment_id, run_name=name, tags=own).info.run_id)


def status_after(error: BaseException) -> str:
    """MLflow's word for how a run ended by an error; a cancelled step ends by one that is no `Exception`."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


@contextmanager
def opened_run(
    client: "MlflowClient", experiment_id: str, name: str, note: str, tags: Mapping[str, str]
) -> Iterator[str]:
    """As `open_run`; the run ends as FINISHED, as FAILED by an error, or as KILLED where the pipeline was cancelled."""
    run_id = open_run(client, experiment_id, name, note, tags)
    try:
        yield run_id
    except BaseException as error:
        with suppress(Exception):
            client.set_terminated(run_id, status_after(error))
        raise
    client.set_terminated(run_id, "FINISHED")


@contextmanager
def opened_model(
    client: "MlflowClient", experiment_id: str, run_id: str, name: str, kind: str, tags: Mapping[str, str]
) -> Iterator["LoggedModel"]:
    """A new logged model, an output of the run, for as long as it is filled; deleted unless all that follows succeeds.

    `kind`: MLflow's model type.
    """
    from mlflow.entities import LoggedModelOutput

    logged = client.create_logged_model(experiment_id, name, run_id, tags=dict(tags), model_type=kind)
    try:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        yield logged
    except BaseException:
        with suppress(Exception):
            client.delete_logged_model(logged.model_id)
        raise


def sweep_killed(client: "MlflowClient", experiment_id: str, model_name: str, fingerprint: str) -> None:
    """Remove what a killed registration of the same fingerprint left: it could not do so itself.

    Nobody else registers this fingerprint now (see the store's lock), so what is unfinished of it is a left-over.
    """
    unfinished = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'RUNNING'"
    killed = {run.info.run_id for run in client.search_runs([experiment_id], unfinished)}
    for run_id in list(killed):  # that of the base model may have ended
        beside = f"tags.{ADAPTER_RUN} = '{run_id}'"
        killed |= {run.info.run_id for run in client.search_runs([experiment_id], beside)}
    for version in client.search_model_versions(f"name = '{model_name}'") if killed else ():
        if version.run_id in killed:
            client.delete_model_version(model_name, version.version)
    for model in client.search_logged_models([experiment_id]) if killed else ():
        if model.source_run_id in killed:
            client.delete_logged_model(model.model_id)
    for run_id in killed:
        client.set_terminated(run_id, "KILLED")


def _commit() -> dict[str, str]:
    """MLflow's tag of the commit that this package runs from; {} where it is not one that git keeps, as installed."""
    folder = Path(ernie_pipeline.__file__).parent
    found = []
    for question in (("ls-files", "--error-unmatch", "__init__.py"), ("rev-parse", "HEAD")):
        try:
            asked = subprocess.run(
                ("git", "-C", str(folder), *question), capture_output=True, text=True, timeout=GIT_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return {}
        found.append(asked.stdout.strip())
    return {"mlflow.source.git.commit": found[-1]}
