"""What goes into a registration, and what comes of it, as plain values and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.sections import Gate
from ernie_pipeline.recipe.signing import UNSIGNED, Signing
from ernie_pipeline.registry.gate import Candidate
from ernie_pipeline.registry.run_log import DatasetFiles
from ernie_pipeline.store.sealed import Files

RUN_ONLY = "dagster.run_id"
"""The tag that a run has and its version has not: a version's provenance says it."""


@dataclass(frozen=True)
class RegistrationRequest:
    """Everything that goes into MLflow, as plain values and files.

    served        model.json: spec (a `ModelSpec`), instruction, max_new_tokens, max_batch
    params        the flattened recipe
    figures       of "base" and "adapter", by the same names: {"accuracy": 0.9, "by_kind/integer/accuracy": 0.8}; see
                  `figures.METRICS`
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
