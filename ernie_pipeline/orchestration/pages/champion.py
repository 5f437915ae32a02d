"""What changed against the last champion: recipe and code, the accuracy, and the questions answered otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.orchestration.pages.tables import table
from ernie_pipeline.orchestration.words import rows
from ernie_pipeline.staleness.because import recorded
from ernie_pipeline.staleness.reasons import differences
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.readable import NOT_READABLE, read_json
from ernie_pipeline.utils.shares import percent, points

TRAINED = ("math_split", "verified_solutions", "qlora_adapter")
"""The stages whose changes are told: those that made the adapter."""
SHOWN = 10
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Before:
    """The champion before: its version, its manifest, and the folder of the answers that it was measured by."""

    version: str
    manifest: Manifest
    answers: Path | None


def against_last_champion(store: ArtifactStore, artifact: Artifact, answers: Path) -> dict[str, Any]:
    """What is told of a registered model beside the champion that was registered last before it in this store.

    `answers`: the folder of its own adapter_evaluation. Nothing where there was no champion of its name.
    """
    before = _last_champion(store, artifact)
    if before is None:
        return {}
    changes = _changes(store, before.manifest, artifact.manifest)
    told: dict[str, Any] = {"the last champion": f"version {before.version}"}
    told["changed since the last champion"] = table({"change": change} for change in changes or ["nothing was changed"])
    return told | (_answers(before, answers) if before.answers else {})


def _last_champion(store: ArtifactStore, artifact: Artifact) -> Before | None:
    """Of this name, whose gate passed, among the artifacts that stand."""
    name, found = artifact.json("registration.json")["name"], []
    for fingerprint in store.fingerprints("registered_model"):
        manifest, problem = store.manifest("registered_model", fingerprint)
        if problem or manifest["built"] >= artifact.manifest["built"]:
            continue
        try:
            said = read_json(store.folder("registered_model", fingerprint) / "registration.json")
        except NOT_READABLE:  # in a bucket: this machine has none of it
            continue
        if said.get("promoted") and said.get("name") == name:
            found.append((manifest["built"], str(said["version"]), manifest))
    if not found:
        return None
    _, version, manifest = max(found, key=lambda each: each[0])
    place = _made(store, "adapter_evaluation", manifest["inputs"]["adapter_evaluation"])
    return Before(version, manifest, place)


def _changes(store: ArtifactStore, then: Manifest, now: Manifest) -> list[str]:
    """Of the recipe, the code, the libraries and the sources, in the stages that make an adapter."""
    told: list[str] = []
    for stage in TRAINED:
        old, new = (_manifest(store, stage, manifest) for manifest in (then, now))
        if old and new:
            changed = differences(recorded(new), old, ignored_inputs=(*TRAINED, "raw_nemotron"))
            told += [change for change in changed if change not in told]
    return told


def _manifest(store: ArtifactStore, stage: str, registered: Manifest) -> Manifest | None:
    """Of the stage's artifact from which what was registered was made, as far as it stands."""
    version = registered["inputs"].get(stage)
    if version is None and (adapter := _manifest(store, "qlora_adapter", registered)):
        version = adapter["inputs"].get(stage)
    return _manifest_of(store, stage, version) if version else None


def _manifest_of(store: ArtifactStore, stage: str, version: str) -> Manifest | None:
    manifests = (store.manifest(stage, fingerprint)[0] for fingerprint in store.fingerprints(stage))
    return next((manifest for manifest in manifests if manifest and manifest["data_version"] == version), None)


def _made(store: ArtifactStore, stage: str, version: str) -> Path | None:
    manifest = _manifest_of(store, stage, version)
    folder = store.folder(stage, manifest["fingerprint"]) if manifest else None
    return folder if folder and (folder / "predictions.parquet").is_file() else None


def _answers(before: Before, answers: Path) -> dict[str, Any]:
    """The questions that both were asked, and which of them are right now or wrong now."""
    import polars as pl

    assert before.answers, "asked where there are some"
    columns = ["row_id", "question", "reference", "extracted", "correct"]
    old, new = (pl.read_parquet(place / "predictions.parquet", columns=columns) for place in (before.answers, answers))
    both = new.join(old.select("row_id", was=pl.col("correct"), said=pl.col("extracted")), on="row_id")
    if not both.height:
        return {"answers beside the last champion's": "it was asked other questions"}
    better, worse = both.filter(pl.col("correct") & ~pl.col("was")), both.filter(~pl.col("correct") & pl.col("was"))
    was, now = (float(both[name].cast(pl.Int64).sum()) / both.height for name in ("was", "correct"))
    told = (
        f"{percent(was)} then, {percent(now)} now ({points(now - was)}), of the {rows(both.height)} that both answered"
    )
    return {
        "answers beside the last champion's": f"{told}: {better.height} got better, {worse.height} worse",
        **{
            f"got {word} since the last champion": table(_changed(row) for row in found.head(SHOWN).to_dicts())
            for word, found in (("worse", worse), ("better", better))
            if found.height
        },
    }


def _changed(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "then, now": f"{row['said'] or 'none'}, {row['extracted'] or 'none'}",
        "right is": row["reference"],
        "question": row["question"],
    }
