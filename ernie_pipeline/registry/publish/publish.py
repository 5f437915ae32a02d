"""Publish the champion: verified, written in the forms asked for, loaded back, and put on the hub in one commit."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.models.spec import model_spec
from ernie_pipeline.recipe.sections import Publish, Recipe
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.registry.aliases import CHAMPION
from ernie_pipeline.registry.export.readme import Report, Tell
from ernie_pipeline.registry.export.source import Source, find_source
from ernie_pipeline.registry.lookup import aliases_now
from ernie_pipeline.registry.model_card import shown
from ernie_pipeline.registry.provenance import recorded_versions
from ernie_pipeline.registry.publish.access import check_access, check_tag
from ernie_pipeline.registry.publish.card import CURVE, Published, publication_card
from ernie_pipeline.registry.publish.citation import bibtex, notice
from ernie_pipeline.registry.publish.folder import seal, write_forms, write_texts
from ernie_pipeline.registry.publish.upload import Commit, upload
from ernie_pipeline.registry.request import card_facts
from ernie_pipeline.registry.signing import SIGNATURE, open_signer
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.trained_on import trained_on
from ernie_pipeline.registry.verification.files import check_files
from ernie_pipeline.registry.verification.version import files_of, find_version
from ernie_pipeline.store.artifacts import Check
from ernie_pipeline.store.sealed import discard
from ernie_pipeline.utils.errors import PipelineError

PUBLISHED_TAG = "published"
"""Of a model version in MLflow: the address of its commit on the hub."""
FILE = "publication.json"
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What is published, gathered by the stage.

    `recipe` needs the sections base_model, publish, quantization, lora and source, and the keys registry.model_name and
    training.backend. `versions`: the data version of every input. `folders`: the artifacts of math_split,
    qlora_adapter, base_evaluation and adapter_evaluation. `built_with`: the recipe keys that these were built with.
    `registration`, `comparison`: what registered_model holds. `source`: what the rows come from, for a person;
    `benchmarks`: the names of the benchmark sets. `picture`: the training curve, as PNG.
    """

    settings: Settings
    recipe: Recipe
    versions: Mapping[str, str]
    folders: Mapping[str, Path]
    built_with: Sequence[Facts]
    registration: Facts
    comparison: Mapping[str, float]
    source: str
    benchmarks: Sequence[str]
    picture: bytes
    signing: Signing

    @property
    def uri(self) -> str:
        """The registered version, as MLflow names it."""
        return f"models:/{self.registration['name']}/{self.registration['version']}"


def publish(request: Request, out: Path, tell: Tell) -> list[Check]:
    """Publish the registered version if it is the champion, and write into `out` where it is, or why it is nowhere.

    Raises `PipelineError` where it cannot be published; the repository's files are as they were then.
    """
    asked, named = request.recipe.publish, request.registration
    about = {"name": named["name"], "version": str(named["version"]), "repo": asked.repo, "private": asked.private}
    if CHAMPION not in (aliases_now(request.settings.tracking_uri, about["name"], about["version"]) or ()):
        why = f"{request.uri} is not the champion, so it was not published. {' '.join(named['reasons'])}"
        _write(out, {**about, "published": False, "why": why})
        return [Check("published", False, why, blocking=False)]
    target = check_access(asked)
    check_tag(asked, target)
    sign = open_signer(request.signing)
    statement = _verified(request)
    scratch, folder = out / "scratch", out / "published"
    scratch.mkdir()
    folder.mkdir()
    source = find_source(request.settings, request.uri, scratch)
    reports = write_forms(source, asked, folder, scratch, tell)
    _write_texts(request, source, reports, statement, folder, signed=sign is not None)
    seal(folder, statement, request.uri, sign)
    tell(f"uploading to {asked.repo}")
    commit = upload(asked, target, folder, f"Version {about['version']} of {about['name']}, by ernie_pipeline")
    _tag_version(request, commit)
    _keep(out, folder, scratch)
    _write(out, {**about, "published": True, **_told(asked, commit, reports)})
    return [_loaded_back(reports, asked, commit)]


def _verified(request: Request) -> Facts:
    """The registered version's statement of provenance. Raises `PipelineError` unless its files are what was registered
    and, where a key to check that with is named, signed."""
    name, listed = str(request.registration["name"]), request.registration.get("files")
    with (
        connected(request.settings.tracking_uri) as client,
        files_of(find_version(client, request.uri, name)) as folder,
    ):
        steps, statement = check_files(folder, listed, request.signing)
    for step in steps:
        if step.outcome == "differs" or (step.outcome == "unchecked" and step.asked):
            raise PipelineError(
                f"{request.uri} is not published, since it is not what was registered ({step.name}): {step.said}; see "
                '"ernie verify"'
            )
    if statement is None:
        raise PipelineError(f"{request.uri} has no statement of provenance to publish; register the adapter again")
    return statement


def _write_texts(
    request: Request, source: Source, reports: Mapping[str, Report], statement: Facts, folder: Path, signed: bool
) -> None:
    recipe, split, asked = request.recipe, request.folders["math_split"], request.recipe.publish
    measured = {name: _json(request.folders[f"{name}_evaluation"] / "metrics.json") for name in ("base", "adapter")}
    profile, versions = _json(split / "reports" / "profile.json"), recorded_versions(dict(statement))
    facts = card_facts(
        recipe,
        model_spec(recipe, request.versions["base_model"], recipe.lora),
        {"source": request.source, "version": request.versions["math_split"], "on": trained_on(request.built_with)},
        request.folders["qlora_adapter"],
        measured,
        request.comparison,
        question="",
    )
    kind, _, commit = versions.get("nemotron_source", "").partition(":")
    facts["data"]["revision"] = commit if kind == "commit" else None
    keys = {name: value for each in request.built_with for name, value in each.items()}
    citation = bibtex(facts["base"], facts["data"], versions)
    about = Published(
        repo=asked.repo,
        license=asked.license,
        model=request.uri,
        instruction=source.instruction,
        reports=reports,
        rows=profile["places"],
        dropped=profile["dropped"],
        benchmarks=[shown(name) for name in request.benchmarks],
        decontamination=keys.get("decontamination", {}),
        versions=versions,
        reasons=request.registration["reasons"],
        citation=citation,
        max_new_tokens=keys["evaluation"]["max_new_tokens"],
        gguf=next((path.name for path in sorted(folder.rglob("*.gguf"))), ""),
        signed=signed,
        by_kind={name: values.get("by_kind", {}) for name, values in measured.items()},
    )
    card = publication_card(facts, about)
    write_texts(folder, asked, card, citation, notice(asked.license, facts["base"], facts["data"]), request.picture)


def _tag_version(request: Request, commit: Commit) -> None:
    named = request.registration
    with connected(request.settings.tracking_uri) as client:
        client.set_model_version_tag(named["name"], str(named["version"]), PUBLISHED_TAG, commit.url)


def _keep(out: Path, folder: Path, scratch: Path) -> None:
    """Of the folder what people read, for the asset's page; the rest is on the hub, and exports can be made again."""
    reports = out / "reports"
    reports.mkdir()
    for name in ("README.md", CURVE):
        shutil.copyfile(folder / name, reports / name)
    for each in (folder, scratch):
        discard(each)


def _told(asked: Publish, commit: Commit, reports: Mapping[str, Report]) -> dict[str, Any]:
    return {
        "forms": [*asked.forms],
        "commit": commit.oid,
        "url": commit.url,
        "tag": asked.tag,
        "files": commit.files,
        "signed": SIGNATURE in commit.files,
        "loaded_back": {form: report.loaded for form, report in reports.items()},
    }


def _loaded_back(reports: Mapping[str, Report], asked: Publish, commit: Commit) -> Check:
    missing = [form for form, report in reports.items() if not report.loaded]
    said = f"commit {commit.oid[:8]} of {asked.repo}"
    if missing:
        return Check("published", False, f"{said}; not loaded back here: {', '.join(missing)}", blocking=False)
    return Check("published", True, f"{said}; each form was loaded back and compared", blocking=False)


def _write(out: Path, values: Facts) -> None:
    (out / FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
