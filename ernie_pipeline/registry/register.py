"""Register an adapter: log it, load it back, compare its logits, then give it its aliases. All of it, or no alias."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_pipeline.recipe.sections import Gate
from ernie_pipeline.recipe.signing import UNSIGNED, Signing
from ernie_pipeline.registry.gate import Candidate, Champion, Decision, decide
from ernie_pipeline.registry.live import drop_live
from ernie_pipeline.registry.load_back import LoadBackRequest, load_back
from ernie_pipeline.registry.made_from import inputs_of
from ernie_pipeline.registry.model_card import description, without_header
from ernie_pipeline.registry.model_folder import write_model_folder
from ernie_pipeline.registry.notes import MODEL, adapter_note, base_note, outcome_note
from ernie_pipeline.registry.opened import ADAPTER_RUN, opened_model, opened_run, sweep_killed
from ernie_pipeline.registry.provenance import write_provenance
from ernie_pipeline.registry.run_log import DatasetFiles, OfModel, log_dataset, log_picture, log_table, log_values
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

BASE, ADAPTER = "base", "adapter"
"""Whose figures they are; the tag `model` of their runs."""

OF_BASE = ("quantization.", "evaluation.")
"""Parameters of the base model's measurement too."""

ANSWERS = "answers.json"
"""The table that both runs have: the first by its name, so the one that the page of tables opens with."""

RUN_ONLY = "dagster.run_id"
"""The tag that a run has and its version has not: a version's provenance says it."""

DESCRIPTION_CHARS = 5000
"""The longest description of a model version that MLflow's databases hold."""


@dataclass(frozen=True)
class RegistrationRequest:
    """Everything that goes into MLflow, as plain values and files.

    served        model.json: spec (a `ModelSpec`), instruction, max_new_tokens, max_batch
    params        the flattened recipe
    figures       of "base" and "adapter", by the same names: {"accuracy": 0.9, "by_kind/integer/accuracy": 0.8}
    metrics       what is a figure of neither, such as costs
    curve         entries {"step": int} with any of training/loss, training/loss_objective, training/learning_rate
    tags          of the version and its runs: fingerprint, the registration's own; dagster.run_id; what a version was
                  made from stands in its provenance alone
    trained       the fingerprint of the training, whose live run is then removed
    about         what the adapter is, in few words: base_model, data_set, trained_on; tags of the runs
    recipe        all that the artifacts were built with
    tables        rows by the table's name
    answers       of "base" and "adapter": rows of the same columns, which MLflow's page shows side by side
    pictures      PNG files by the picture's name
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
    figures: Mapping[str, Mapping[str, float]]
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
    about: Mapping[str, str]
    recipe: Mapping[str, Any]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    answers: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    trained: str = ""
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
    files: Files


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
        tags = _run_tags(request, ADAPTER)
        with (
            opened_run(client, experiment_id, request.run_name, note, tags) as run_id,
            opened_model(client, experiment_id, run_id, request.model_name, "LoRA adapter", tags) as logged,
            _base_measured(client, experiment_id, run_id, request),
        ):
            model_id, files = logged.model_id, _upload(client, logged, run_id, request, sign, tell)
            client.finalize_logged_model(model_id, "READY")
            tell("uploaded; logging figures, curves, tables and pictures")
            _log_adapter(client, run_id, model_id, request)
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


def _log_adapter(client: "MlflowClient", run_id: str, model_id: str, request: RegistrationRequest) -> None:
    """What the adapter's run holds."""
    log_dataset(client, run_id, request.dataset)  # before the figures, which name it
    figures = {**request.figures[ADAPTER], **_grouped("comparison", request.comparison)}
    log_values(client, run_id, metrics=figures, of=_on_held_out(model_id, request))
    log_values(client, run_id, params=request.params, metrics=request.metrics, curve=request.curve)
    _log_answers(client, run_id, ADAPTER, request)
    for name, rows in request.tables.items():
        log_table(client, run_id, f"{name}.json", rows)
    for name, picture in request.pictures.items():
        log_picture(client, run_id, f"{name}.png", picture)
    client.log_dict(run_id, dict(request.recipe), "recipe.json")
    client.log_artifact(run_id, str(request.predictions))
    client.log_text(run_id, without_header(request.card), "model_card.md")


def _log_answers(client: "MlflowClient", run_id: str, side: str, request: RegistrationRequest) -> None:
    if rows := request.answers.get(side):
        log_table(client, run_id, ANSWERS, rows)


@contextmanager
def _base_measured(
    client: "MlflowClient", experiment_id: str, adapter_run: str, request: RegistrationRequest
) -> Iterator[None]:
    """The base model as a run beside the adapter's, and as a logged model: the same figures by the same names.

    Not as a run inside: MLflow's page folds these away, and its charts then show the adapter alone.
    """
    about = {key: value for key, value in request.about.items() if key != "trained_on"}
    request = replace(request, about=about)
    name, note = f"{about['base_model']} (base model)", base_note(request.run_name)
    tags = {ADAPTER_RUN: adapter_run, **_run_tags(request, BASE)}
    external = {"mlflow.model.isExternal": "true", **_run_tags(request, BASE)}  # it has no files here
    with (
        opened_run(client, experiment_id, name, note, tags) as run_id,
        opened_model(client, experiment_id, run_id, f"{request.model_name}-base", "base model", external) as logged,
    ):
        log_dataset(client, run_id, request.dataset, ["evaluation"])
        params = {key: value for key, value in request.params.items() if key in about or key.startswith(OF_BASE)}
        log_values(client, run_id, params=params)
        log_values(client, run_id, metrics=request.figures[BASE], of=_on_held_out(logged.model_id, request))
        _log_answers(client, run_id, BASE, request)
        client.finalize_logged_model(logged.model_id, "READY")
        yield


def _on_held_out(model_id: str, request: RegistrationRequest) -> OfModel:
    return OfModel(model_id, *request.dataset.named(request.dataset.eval_path))


def _run_tags(request: RegistrationRequest, model: str) -> dict[str, str]:
    """What is searched by, in few words."""
    return {"model": model, **request.about, **request.tags}


def _grouped(group: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Names by which MLflow's page puts the charts under one heading."""
    return {f"{group}/{name}": value for name, value in figures.items()}


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
        description=description(request.card, DESCRIPTION_CHARS),
    )
    try:
        yield str(made.version)
    except BaseException:
        with suppress(Exception):
            client.delete_model_version(name, made.version)
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
    log_values(client, run_id, tags=tags, metrics={CHECKED: difference})
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
