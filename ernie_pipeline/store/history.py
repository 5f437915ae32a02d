"""What was ever built: a line for each build, kept beside the artifacts, so that one that is gone is still known."""

import json
from typing import Any

from ernie_pipeline.store.artifacts import MANIFEST, Artifact, ArtifactStore

KEPT = (
    "stage",
    "fingerprint",
    "declared_version",
    "inputs",
    "recipe",
    "modules",
    "libraries",
    "data_version",
    "seconds",
    "built",
)

Build = dict[str, Any]
"""A manifest without its files: what was built when, from what, in how many seconds."""


def remember(store: ArtifactStore, artifact: Artifact) -> None:
    """Add a build to the stage's history."""
    file = store.root / ".builds" / f"{artifact.manifest['stage']}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as log:  # one short write in append mode: whole beside other writers'
        log.write(json.dumps({key: artifact.manifest[key] for key in KEPT}) + "\n")


def builds(store: ArtifactStore, stage: str) -> list[Build]:
    """Every known build of the stage, oldest first: of the history, and of artifacts that stand in the store."""
    found = {}
    log = store.root / ".builds" / f"{stage}.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    manifests = [store.folder(stage, fingerprint) / MANIFEST for fingerprint in store.fingerprints(stage)]
    for text in [*lines, *(file.read_text(encoding="utf-8") for file in manifests if file.is_file())]:
        build = _parsed(text)
        if build:
            found[build["fingerprint"], build["built"]] = build
    return sorted(found.values(), key=lambda build: str(build["built"]))


def _parsed(text: str) -> Build | None:
    """None for a line that a crash cut off, and for an altered manifest: history is advice, never a reason to fail."""
    try:
        build = json.loads(text)
        return {key: build[key] for key in KEPT}
    except (ValueError, KeyError, TypeError):
        return None
