"""Where an artifact came from, why it was built and what it cost, for its asset's page."""

import socket
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.cost_report import cost_metadata
from ernie_pipeline.orchestration.words import duration, moment, place, rounded
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.because import why_it_was_built
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.shared.publication import place_of


def reason(artifact: Artifact, store: ArtifactStore, why: str = "") -> dict[str, str]:
    """`why`: the reason for which it was built just now; "" for one that was found in the `store`."""
    if why:
        return {"why": why}
    built = moment(artifact.manifest["built"])
    return {
        "why": f"reused, no work was done: nothing that it depends on has changed since {built}",
        "why it was built then": why_it_was_built(store, artifact.manifest),
    }


def origin(artifact: Artifact) -> dict[str, Any]:
    """When it was built, where it is and what it cost. Raises `PipelineError` for a bad price."""
    manifest = artifact.manifest
    built = moment(manifest["built"])
    return {
        "reused": artifact.reused,
        "built": f"{built}, in {duration(manifest['seconds'])}",
        "build seconds": rounded(manifest["seconds"]),
        "fingerprint": manifest["fingerprint"],
        **_places(artifact),
        **cost_metadata(manifest, Budget.from_environment().price),
    }


def address_of(artifact: Artifact) -> str:
    """Where it is, in a word: its folder, or its address in a bucket, which holds on every machine."""
    address, manifest = Settings.from_environment().address, artifact.manifest
    return f"{address}/{place_of(manifest['stage'], manifest['fingerprint'])}" if address else str(artifact.folder)


def _places(artifact: Artifact) -> dict[str, Any]:
    """Where it is, and in the case of a bucket what this machine has of it."""
    here = artifact.folder
    if Settings.from_environment().address is None:
        return {"artifact": dg.MetadataValue.path(place(here))}
    cached = {f"copy on {socket.gethostname()}": dg.MetadataValue.path(place(here))} if here.is_dir() else {}
    return {"artifact": dg.MetadataValue.text(address_of(artifact)), **cached}
