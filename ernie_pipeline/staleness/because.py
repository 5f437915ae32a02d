"""Why an artifact is built now, or was built when it was: in the plan's words."""

from collections.abc import Mapping
from typing import Any

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import plan_asset
from ernie_pipeline.staleness.reasons import differences, nearest
from ernie_pipeline.store.artifacts import NOT_BUILT, ArtifactStore, Provenance
from ernie_pipeline.store.history import builds

FIRST = "it was the first build"
SAME_AGAIN = "the one that was built before was deleted or altered"


def why_to_build(chain: Chain, name: str) -> str:
    """Of a stage whose inputs stand and whose artifact does not: what changed since the nearest build, or befell it."""
    return "; ".join(plan_asset(chain, name).reasons) or NOT_BUILT


def why_it_was_built(store: ArtifactStore, manifest: Mapping[str, Any]) -> str:
    """Of an artifact that stands: in what it differed from the builds before it, as far as the history tells."""
    before = [build for build in builds(store, manifest["stage"]) if build["built"] < manifest["built"]]
    if any(build["fingerprint"] == manifest["fingerprint"] for build in before):
        return SAME_AGAIN
    made_from = recorded(manifest)
    last = nearest(made_from, before)
    return "; ".join(differences(made_from, last)) if last else FIRST


def recorded(manifest: Mapping[str, Any]) -> Provenance:
    """What an artifact was made from, as its manifest has it."""
    keys = ("stage", "fingerprint", "declared_version", "inputs", "recipe", "modules", "libraries")
    return Provenance(**{key: manifest[key] for key in keys})
