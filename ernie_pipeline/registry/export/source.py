"""Which adapter is exported: a version of MLflow's registry, the champion by default, or an artifact of the home."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec, base_checkpoint
from ernie_pipeline.recipe.sections import BaseModelRef, Lora, Quantization
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.lookup import Registered, what_is_lost
from ernie_pipeline.registry.model_uri import FORMS
from ernie_pipeline.registry.registered_names import check_registry
from ernie_pipeline.registry.tracking import CHECKED, connected
from ernie_pipeline.registry.verification.version import find_version
from ernie_pipeline.store.artifacts import NOT_BUILT
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.history import builds
from ernie_pipeline.store.readable import NOT_READABLE, read_json
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.address import local_folder
from ernie_pipeline.utils.errors import PipelineError

FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Source:
    """`name`: what it is, for a person. `spec`: the model with the folder of its adapter. `instruction`: what stands
    before a question, "" where that is not recorded. `card`: the model card, "" where there is none. `checked`: against
    which record its files were held, or why they were not."""

    name: str
    spec: ModelSpec
    instruction: str
    max_new_tokens: int
    card: str
    checked: str


def find_source(settings: Settings, model: str | None, scratch: Path) -> Source:
    """What `model` names: a fingerprint or folder of an artifact of qlora_adapter, else a version as `find_version` has
    it; None: the champion of the recipe's model. `scratch`: where a server's files are copied to.

    Raises `PipelineError` for what is not there, or is damaged.
    """
    if model and FINGERPRINT.fullmatch(Path(model).name):
        return _artifact(settings, model)
    return _registered(settings, model, scratch)


def _registered(settings: Settings, named: str | None, scratch: Path) -> Source:
    check_registry(settings)
    with connected(settings.tracking_uri) as client:
        version = find_version(client, named, settings.load_recipe().registry.model_name)
    uri = version.uri
    if CHECKED not in version.tags:
        raise PipelineError(f"{uri} was never checked after loading it back; register it again")
    folder = _local(settings, version.location, uri, scratch)
    found = sorted(folder.glob("artifacts/*/adapter_config.json"))
    try:
        served: dict[str, Any] = json.loads((folder / "artifacts" / "model.json").read_text(encoding="utf-8"))
        adapter, spec = found[0].parent, ModelSpec.model_validate(served["spec"])
    except (IndexError, OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"the files of {uri} in {folder} are not those that this package registers; register the adapter again"
        ) from error
    checked = _held_against_record(settings, version.name, version.version)
    card = adapter / "README.md"
    return Source(
        name=uri,
        spec=spec.model_copy(update={"base": _pinned(spec.base), "adapter": adapter}),
        instruction=str(served.get("instruction", "")),
        max_new_tokens=int(served["max_new_tokens"]),
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
        checked=checked,
    )


def _local(settings: Settings, location: str, uri: str, scratch: Path) -> Path:
    """The folder of a version's files; a server's are copied."""
    folder = local_folder(location)
    if folder and folder.is_dir():
        return folder
    with connected(settings.tracking_uri):
        import mlflow

        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))


def _held_against_record(settings: Settings, name: str, version: str) -> str:
    """What it was held against. Raises `PipelineError` where a file is not the one that was registered."""
    store = open_store(settings, for_run=False, fetch=True)
    for fingerprint in {build["fingerprint"]: 0 for build in reversed(builds(store, "registered_model"))}:
        artifact, _ = store.find("registered_model", fingerprint)
        made = Registered.read(artifact.json("registration.json")) if artifact else None
        if made and (made.name, made.version) == (name, version) and made.files:
            if lost := what_is_lost(settings.tracking_uri, Registered(name, version, (), made.files), sha256_of):
                raise PipelineError(f"{lost}; register the adapter again")
            return "every file has the hash that was recorded when it was registered"
    return "this home has no record of its registration to hold its files against"


def _artifact(settings: Settings, model: str) -> Source:
    """A finished adapter of the home's store, by its fingerprint or its folder."""
    store, stage = open_store(settings, for_run=False, fetch=True), "qlora_adapter"
    artifact, problem = store.find(stage, Path(model).name)
    inside = artifact and (Path(model).name == model or Path(model).resolve() == artifact.folder.resolve())
    if artifact is None or not inside:
        none = f"is no artifact of {stage} in {settings.address or settings.store}"
        why = none if artifact or problem == NOT_BUILT else f"is damaged: {problem}"
        raise PipelineError(f'{model} {why}; name {FORMS}, or the fingerprint of one there ("ernie store list")')
    keys, folder = artifact.manifest["recipe"], artifact.folder / "adapter"
    try:
        recorded = read_json(folder / "adapter_config.json")["base_model_name_or_path"]
        spec = ModelSpec(
            backend=keys["training"]["backend"],
            base=_pinned(base_checkpoint(BaseModelRef(name=recorded), artifact.manifest["inputs"]["base_model"])),
            quantization=Quantization.model_validate(keys["quantization"]),
            lora=Lora.model_validate(keys["lora"]),
            adapter=folder,
        )
    except (*NOT_READABLE, KeyError, TypeError) as error:
        raise PipelineError(f"the manifest of {artifact.folder} does not say its base model; build it again") from error
    name = f"{stage} {artifact.manifest['fingerprint']}"
    return Source(name, spec, "", 64, "", "every file has the hash of the artifact's manifest")


def _pinned(base: BaseCheckpoint) -> BaseCheckpoint:
    """The base where it lies here. Raises `PipelineError` for a folder whose content is not the recorded one."""
    from ernie_pipeline.registry.served_model import pinned_checkpoint  # seconds of imports

    return base.model_copy(update={"checkpoint": pinned_checkpoint(base.model_dump())})
