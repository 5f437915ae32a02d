"""Register an adapter: log it, load it back, compare its logits, then give it its aliases. All of it, or no alias."""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_pipeline.registry.gate import Champion, Decision, decide
from ernie_pipeline.registry.live import drop_live
from ernie_pipeline.registry.load_back import LoadBackRequest, load_back
from ernie_pipeline.registry.made_from import inputs_of
from ernie_pipeline.registry.model_card import description, of_version, without_header
from ernie_pipeline.registry.model_folder import write_model_folder
from ernie_pipeline.registry.notes import MODEL, adapter_note, outcome_note
from ernie_pipeline.registry.opened import opened_model, opened_run, sweep_killed
from ernie_pipeline.registry.provenance import write_provenance
from ernie_pipeline.registry.registration import RUN_ONLY, Registration, RegistrationRequest
from ernie_pipeline.registry.run_log import log_values
from ernie_pipeline.registry.runs import ADAPTER, base_measured, log_adapter, run_tags
from ernie_pipeline.registry.signing import Sign, open_signer
from ernie_pipeline.registry.tracking import BEFORE, CHECKED, connected, ensure_experiment
from ernie_pipeline.store.sealed import Files, list_files
from ernie_pipeline.utils.address import public_uri
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.text_table import human_size

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

Alone = Callable[[], AbstractContextManager[None]]
"""A context in which nobody else is."""
Tell = Callable[[str], object]
"""Hears what a registration is about to do, or has done, in a line."""

DESCRIPTION_CHARS = 5000
"""The longest description of a model version that MLflow's databases hold."""


def register(request: RegistrationRequest, alone: Alone = nullcontext, tell: Tell = lambda _: None) -> Registration:
    """Log the adapter as a new version of the model, check it after loading it back, and decide on its aliases.

    Within `alone` nobody else moves an alias: from the look at the champion until the aliases are set. `tell` hears of
    each part that may take its time.
    Raises `PipelineError` when the reloaded model's logits differ by more than the tolerance, or MLflow refuses; the
    run is then marked as failed, and the new version deleted.
    """
    sign = open_signer(request.signing)
    tell(f"opening the registry at {public_uri(request.tracking_uri)}")
    with connected(request.tracking_uri) as client:
        experiment_id = ensure_experiment(client, request.experiment, request.artifact_root)
        if fingerprint := request.tags.get("fingerprint"):
            sweep_killed(client, experiment_id, request.model_name, fingerprint)
        note = adapter_note(request.about, request.figures, request.comparison)
        tags = run_tags(request, ADAPTER)
        with (
            opened_run(client, experiment_id, request.run_name, note, tags) as run_id,
            opened_model(client, experiment_id, run_id, request.model_name, "LoRA adapter", tags) as logged,
            base_measured(client, experiment_id, run_id, request),
        ):
            model_id, files = logged.model_id, _upload(client, logged, run_id, request, sign, tell)
            client.finalize_logged_model(model_id, "READY")
            tell("uploaded; logging figures, curves, tables and pictures")
            log_adapter(client, run_id, model_id, request)
            with _new_version(client, run_id, model_id, request) as version:
                difference, answer = _check(request, version, tell)
                with alone():
                    tell("asking the gate")
                    champion = _champion(client, request)
                    decision = decide(request.gate, request.comparison, request.candidate, champion)
                    aliases = _publish(client, run_id, version, difference, decision, champion, request)
        if request.trained:
            drop_live(client, experiment_id, request.trained)
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
        files=files,
    )


def _upload(
    client: "MlflowClient",
    logged: "LoggedModel",
    run_id: str,
    request: RegistrationRequest,
    sign: Sign | None,
    tell: Tell,
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
        size, signed = human_size(sum(entry["size"] for entry in files.values())), " and signed" if sign else ""
        tell(f"{len(files)} files, {size}, are hashed{signed}; uploading them")
        client.log_model_artifacts(logged.model_id, str(folder))
    return files


@contextmanager
def _new_version(client: "MlflowClient", run_id: str, model_id: str, request: RegistrationRequest) -> Iterator[str]:
    """A new version of the registered model, deleted again (with its aliases) unless all that follows succeeds."""
    from mlflow.exceptions import MlflowException

    name = request.model_name
    try:
        client.create_registered_model(name, description=MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags=_version_tags(request),
    )
    version = str(made.version)
    try:
        card = of_version(request.card, name, version)
        client.update_model_version(name, version, description(card, DESCRIPTION_CHARS))
        client.log_text(run_id, without_header(card), "model_card.md")
        yield version
    except BaseException:
        with suppress(Exception):
            client.delete_model_version(name, version)
        raise


def _check(request: RegistrationRequest, version: str, tell: Tell) -> tuple[float, str]:
    """Load the version back; how far its logits are from the recorded ones, and its answer to the example."""
    uri, probe = f"models:/{request.model_name}/{version}", request.probe
    if not probe["top"]:
        raise PipelineError(f"{uri} cannot be checked after loading it back: the probe records no logits")
    tell(f"loading {uri} back in a process of its own")
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
    told = f"differ by up to {difference:.2g}, tolerated are {request.probe_tolerance:g}"
    tell(f"{uri}, loaded back, answers; {len(probe['top'])} logits compared with those of the training {told}")
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
    aliases = ["challenger", "champion"] if decision.promote else ["challenger"]
    note = adapter_note(request.about, request.figures, request.comparison)
    note += "\n\n" + outcome_note(name, version, aliases, decision.reasons)
    tags = {"gate.promoted": outcome["gate.promoted"], "registered_version": version, "mlflow.note.content": note}
    log_values(client, run_id, tags=tags)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, version)
    return aliases


def _champion(client: "MlflowClient", request: RegistrationRequest) -> Champion | None:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(request.model_name, "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    tags, inputs = found.tags, dict(inputs_of(client, found))
    if not inputs and tags.get("fingerprint", "") == request.tags.get("fingerprint"):
        # the same registration, made anew since its files are gone
        inputs = {"math_split": request.candidate.split_version, "qlora_adapter": request.candidate.adapter_version}
    return Champion(
        version=str(found.version),
        # most tags of gate are those of a version of before
        accuracy=float(tags["gate.accuracy"]) if "gate.accuracy" in tags else _accuracy(client, found.run_id),
        split_version=inputs.get("math_split", tags.get("gate.split_version", "")),
        adapter_version=inputs.get("qlora_adapter", tags.get("gate.adapter_version", "")),
        held_out=tags.get("gate.held_out", ""),
    )


def _accuracy(client: "MlflowClient", run_id: str | None) -> float | None:
    """None where the run is gone."""
    from mlflow.exceptions import MlflowException

    try:
        accuracy: float | None = client.get_run(run_id or "none").data.metrics.get("accuracy")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return accuracy


def _version_tags(request: RegistrationRequest) -> dict[str, str]:
    """By which the version is found again, and compared with as a champion: eight with what the gate, an alias that
    is moved and publishing add. What it was made from is in its provenance, its accuracy in its run."""
    return {
        **{name: value for name, value in request.tags.items() if name != RUN_ONLY},
        "gate.held_out": request.candidate.held_out,
    }
