"""Register an adapter: log it, load it back, compare its logits, then give it its aliases. All of it, or no alias."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_pipeline.recipe.sections import Gate
from ernie_pipeline.recipe.signing import UNSIGNED, Signing
from ernie_pipeline.registry.gate import Candidate, Champion, Decision, decide
from ernie_pipeline.registry.load_back import LoadBackRequest, load_back
from ernie_pipeline.registry.model_card import description
from ernie_pipeline.registry.model_folder import write_model_folder
from ernie_pipeline.registry.provenance import write_provenance
from ernie_pipeline.registry.run_log import DatasetFiles, log_dataset, log_values
from ernie_pipeline.registry.signing import Sign, open_signer
from ernie_pipeline.registry.tracking import BEFORE, CHECKED, connected, ensure_experiment, run_link
from ernie_pipeline.store.sealed import Files, list_files
from ernie_pipeline.utils.address import public_uri
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

Alone = Callable[[], AbstractContextManager[None]]
"""A context in which nobody else is."""

DESCRIPTION_CHARS = 5000
"""The longest description of a model version that MLflow's databases hold."""


@dataclass(frozen=True)
class RegistrationRequest:
    """Everything that goes into MLflow, as plain values and files.

    served        model.json: spec (a `ModelSpec`), instruction, max_new_tokens, max_batch
    params        the flattened recipe
    metrics       flattened figures of training and evaluation
    curve         entries {"step": int} with any of loss, loss_objective, learning_rate
    comparison    gain, gain_low, gain_high, p_value against the base model
    candidate     the adapter's accuracy and the data versions that the gate compares
    probe         {"input_ids": [token id], "top": [[token id, logit]]}: the trained model's logits after `input_ids`
    example       {"question": ..., "answer": ...}: the input example
    artifact_root where a new experiment's files go; None leaves it to the server
    provenance    SLSA's predicate, see `provenance.predicate`
    signing       with what the model's folder is signed
    """

    tracking_uri: str
    artifact_root: Path | None
    experiment: str
    model_name: str
    run_name: str
    adapter: Path
    served: dict[str, Any]
    params: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    curve: Sequence[Mapping[str, float]]
    dataset: DatasetFiles
    tags: Mapping[str, str]
    predictions: Path
    card: str
    gate: Gate
    comparison: Mapping[str, float]
    candidate: Candidate
    probe: Mapping[str, Any]
    probe_tolerance: float
    example: dict[str, str]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    signing: Signing = UNSIGNED


@dataclass(frozen=True)
class Registration:
    """A registered, checked model version, and why it is the champion or not; holds no secrets.

    `max_logit_difference` and `answer` (to the example's question) are the loaded back model's; `files` are those that
    were uploaded, by which `lookup.what_is_lost` knows them again.
    """

    name: str
    version: str
    run_id: str
    experiment_id: str
    tracking_uri: str
    model_uri: str
    aliases: list[str]
    promoted: bool
    reasons: list[str]
    max_logit_difference: float
    answer: str
    run_url: str
    files: Files


def register(request: RegistrationRequest, alone: Alone = nullcontext) -> Registration:
    """Log the adapter as a new version of the model, check it after loading it back, and decide on its aliases.

    Within `alone` nobody else moves an alias: from the look at the champion until the aliases are set.
    Raises `PipelineError` when the reloaded model's logits differ by more than the tolerance, or MLflow refuses; the
    run is then marked as failed, and the new version deleted.
    """
    sign = open_signer(request.signing)
    with connected(request.tracking_uri) as client:
        experiment_id = ensure_experiment(client, request.experiment, request.artifact_root)
        _sweep_killed(client, experiment_id, request)
        with (
            _run(client, experiment_id, request) as run_id,
            _logged_model(client, experiment_id, run_id, request, sign) as (model_id, files),
        ):
            _log_run(client, run_id, model_id, request)
            with _new_version(client, run_id, model_id, request) as version:
                difference, answer = _check(request, version)
                with alone():
                    champion = _champion(client, request.model_name)
                    decision = decide(request.gate, request.comparison, request.candidate, champion)
                    aliases = _publish(client, run_id, version, difference, decision, champion, request)
    return Registration(
        name=request.model_name,
        version=version,
        run_id=run_id,
        experiment_id=experiment_id,
        tracking_uri=public_uri(request.tracking_uri),
        model_uri=f"models:/{request.model_name}/{version}",
        aliases=aliases,
        promoted=decision.promote,
        reasons=decision.reasons,
        max_logit_difference=difference,
        answer=answer,
        run_url=run_link(request.tracking_uri, experiment_id, run_id),
        files=files,
    )


def _sweep_killed(client: "MlflowClient", experiment_id: str, request: RegistrationRequest) -> None:
    """Remove what a killed registration of the same fingerprint left: it could not do so itself.

    Nobody else registers this fingerprint now (see the store's lock), so what is unfinished of it is a left-over.
    """
    if not (fingerprint := request.tags.get("fingerprint")):
        return
    unfinished = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'RUNNING'"
    killed = {run.info.run_id for run in client.search_runs([experiment_id], unfinished)}
    for version in client.search_model_versions(f"name = '{request.model_name}'") if killed else ():
        if version.run_id in killed:
            client.delete_model_version(request.model_name, version.version)
    for model in client.search_logged_models([experiment_id]) if killed else ():
        if model.source_run_id in killed:
            client.delete_logged_model(model.model_id)
    for run_id in killed:
        client.set_terminated(run_id, "KILLED")


@contextmanager
def _run(client: "MlflowClient", experiment_id: str, request: RegistrationRequest) -> Iterator[str]:
    """An MLflow run that ends as FINISHED or FAILED, whatever happens, a cancelled pipeline included."""
    tags = {"mlflow.source.name": "ernie_pipeline", "mlflow.source.type": "JOB", **request.tags}
    run_id = str(client.create_run(experiment_id, run_name=request.run_name, tags=tags).info.run_id)
    try:
        yield run_id
    except BaseException:
        with suppress(Exception):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


@contextmanager
def _logged_model(
    client: "MlflowClient", experiment_id: str, run_id: str, request: RegistrationRequest, sign: Sign | None
) -> Iterator[tuple[str, Files]]:
    """The servable model, uploaded as an output of the run, deleted again unless all that follows succeeds.

    Its id, and the files that were uploaded.
    """
    from mlflow.entities import LoggedModelOutput

    tags = dict(request.tags)
    logged = client.create_logged_model(experiment_id, request.model_name, run_id, tags=tags, model_type="adapter")
    try:
        files = _upload(client, logged, run_id, request, sign)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        client.finalize_logged_model(logged.model_id, "READY")
        yield str(logged.model_id), files
    except BaseException:
        with suppress(Exception):
            client.delete_logged_model(logged.model_id)
        raise


def _upload(
    client: "MlflowClient", logged: "LoggedModel", run_id: str, request: RegistrationRequest, sign: Sign | None
) -> Files:
    from mlflow.models import Model

    identity = {"artifact_path": logged.artifact_location, "model_uuid": logged.model_id, "model_id": logged.model_id}
    with tempfile.TemporaryDirectory(prefix="ernie_pipeline_") as staging:
        folder = Path(staging, "model")
        write_model_folder(
            folder,
            adapter=request.adapter,
            served=request.served,
            example=request.example,
            card=request.card,
            mlflow_model=Model(run_id=run_id, **identity),
            staging=Path(staging),
        )
        write_provenance(folder, request.provenance)
        if sign:
            sign(folder)
        files = list_files(folder)
        client.log_model_artifacts(logged.model_id, str(folder))
    return files


def _log_run(client: "MlflowClient", run_id: str, model_id: str, request: RegistrationRequest) -> None:
    log_values(client, run_id, params=request.params, metrics=request.metrics, curve=request.curve, model_id=model_id)
    log_dataset(client, run_id, request.dataset)
    client.log_artifact(run_id, str(request.predictions))
    client.log_text(run_id, request.card, "model_card.md")


@contextmanager
def _new_version(client: "MlflowClient", run_id: str, model_id: str, request: RegistrationRequest) -> Iterator[str]:
    """A new version of the registered model, deleted again (with its aliases) unless all that follows succeeds."""
    from mlflow.exceptions import MlflowException

    name = request.model_name
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags={**request.tags, **_recorded(request.candidate)},
        description=description(request.card, DESCRIPTION_CHARS),
    )
    try:
        yield str(made.version)
    except BaseException:
        with suppress(Exception):
            client.delete_model_version(name, made.version)
        raise


def _check(request: RegistrationRequest, version: str) -> tuple[float, str]:
    """Load the version back; how far its logits are from the recorded ones, and its answer to the example."""
    uri, probe = f"models:/{request.model_name}/{version}", request.probe
    if not probe["top"]:
        raise PipelineError(f"{uri} cannot be checked after loading it back: the probe records no logits")
    asked = LoadBackRequest(uri=uri, input_ids=probe["input_ids"], question=request.example["question"])
    try:
        with tempfile.TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
            found = load_back(asked, Path(scratch))
    except PipelineError as error:
        raise PipelineError(f"{uri} cannot be loaded back, so it is deleted again: {error}") from error
    difference = max(_distance(found.logits[token], logit) for token, logit in probe["top"])
    if difference > request.probe_tolerance:
        raise PipelineError(
            f"{uri}, loaded back, is not the model that was trained: its logits differ by up to {difference:.4g}, "
            f"tolerated are {request.probe_tolerance:g}; the version is deleted, the adapter stays in {request.adapter}"
        )
    return difference, found.answer


def _distance(found: float, recorded: float) -> float:
    distance = abs(found - recorded)
    return math.inf if math.isnan(distance) else distance  # else a NaN would pass every comparison


def _publish(
    client: "MlflowClient",
    run_id: str,
    version: str,
    difference: float,
    decision: Decision,
    champion: Champion | None,
    request: RegistrationRequest,
) -> list[str]:
    """Record the check, the decision and the champion before it, then set the aliases, `champion` last; which ones."""
    name = request.model_name
    outcome = {"gate.promoted": str(decision.promote).lower(), "gate.reasons": " ".join(decision.reasons)}
    before = {BEFORE: champion.version} if champion and decision.promote else {}
    for key, value in {**outcome, **before, CHECKED: f"{difference:.6g}"}.items():
        client.set_model_version_tag(name, version, key, value)
    log_values(client, run_id, tags={**outcome, "registered_version": version}, metrics={CHECKED: difference})
    aliases = ["challenger", "champion"] if decision.promote else ["challenger"]
    for alias in aliases:
        client.set_registered_model_alias(name, alias, version)
    return aliases


def _champion(client: "MlflowClient", name: str) -> Champion | None:
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    tags = version.tags
    return Champion(
        version=str(version.version),
        accuracy=float(tags["gate.accuracy"]) if "gate.accuracy" in tags else None,
        split_version=tags.get("gate.split_version", ""),
        adapter_version=tags.get("gate.adapter_version", ""),
        held_out=tags.get("gate.held_out", ""),
    )


def _recorded(candidate: Candidate) -> dict[str, str]:
    """The tags by which `_champion` knows this version later."""
    return {
        "gate.accuracy": repr(candidate.accuracy),
        "gate.split_version": candidate.split_version,
        "gate.adapter_version": candidate.adapter_version,
        "gate.held_out": candidate.held_out,
    }
