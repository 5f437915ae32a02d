"""What is published, as a folder: the forms, each loaded back, card, licence, citation, provenance and signature."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.recipe.sections import Publish
from ernie_pipeline.registry.export.export import MANIFEST, Asked, export_source
from ernie_pipeline.registry.export.readme import Report, Tell
from ernie_pipeline.registry.export.source import Source
from ernie_pipeline.registry.model_card import shown
from ernie_pipeline.registry.provenance import write_provenance
from ernie_pipeline.registry.publish.card import CITATION, CURVE, LICENSE, NOTICE, folder_of
from ernie_pipeline.registry.signing import Sign
from ernie_pipeline.store.hashing.file_hash import sha256_of

LICENSE_TEXTS = {"apache-2.0": Path(__file__).with_name("apache-2.0.txt")}
"""Those that a published model brings along; of another its NOTICE says where it stands."""
ADAPTER_CONFIG = "adapter_config.json"


def write_forms(source: Source, publish: Publish, folder: Path, scratch: Path, tell: Tell) -> dict[str, Report]:
    """Write each form into its place below `folder`; what was found when it was loaded back, by its name.

    Raises `PipelineError` for one that is not what it should be.
    """
    reports: dict[str, Report] = {}
    for form in publish.forms:
        exported = scratch / form
        reports[form] = export_source(source, Asked(form, exported), scratch, tell)
        (exported / "README.md").unlink()  # the card says it of all forms
        place = folder / folder_of(form, publish.forms)
        place.mkdir(parents=True, exist_ok=True)
        for path in exported.iterdir():
            path.rename(place / path.name)
        if source.spec.base.revision is None:
            _without_places(place, source.spec.base)
    return reports


def write_texts(folder: Path, publish: Publish, card: str, citation: str, notice: str, picture: bytes) -> None:
    """The files that people read."""
    for name, text in {"README.md": card, CITATION: citation, NOTICE: notice}.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / CURVE).write_bytes(picture)
    if text_file := LICENSE_TEXTS.get(publish.license):
        (folder / LICENSE).write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")


def seal(folder: Path, statement: Mapping[str, Any], model: str, sign: Sign | None) -> None:
    """The statement of provenance about these files, and their signature.

    `statement`: that of the registered `model`, which is among what these files were made from.
    """
    digest = hashlib.sha256(json.dumps(statement, sort_keys=True).encode()).hexdigest()
    predicate = json.loads(json.dumps(statement["predicate"]))
    predicate["buildDefinition"]["resolvedDependencies"].append(
        {"name": "registered_model", "uri": model, "digest": {"sha256": digest}}
    )
    write_provenance(folder, predicate)
    if sign:
        sign(folder)


def _without_places(place: Path, base: BaseCheckpoint) -> None:
    """Of a base model in a folder only the last part of its path: where it lay here is nobody's business."""

    def rewritten(name: str, change: Callable[[dict[str, Any]], None]) -> None:
        file = place / name
        if file.is_file():
            values = json.loads(file.read_text(encoding="utf-8"))
            change(values)
            file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def in_config(values: dict[str, Any]) -> None:
        values["base_model_name_or_path"] = shown(base.name)

    def in_manifest(values: dict[str, Any]) -> None:
        values["base"] |= {"name": shown(base.name), "checkpoint": shown(base.name)}
        if ADAPTER_CONFIG in values["files"]:
            values["files"][ADAPTER_CONFIG] = sha256_of(place / ADAPTER_CONFIG)

    rewritten(ADAPTER_CONFIG, in_config)
    rewritten(MANIFEST, in_manifest)
