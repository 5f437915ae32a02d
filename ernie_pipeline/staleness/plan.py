"""What is stale, and why: the same answer for the command line, the schedule, the sensor and Dagster's marks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.code import short_hash
from ernie_pipeline.staleness.reasons import differences, nearest
from ernie_pipeline.store.artifacts import NOT_BUILT, Artifact, Provenance
from ernie_pipeline.store.history import Build, builds

State = Literal["fresh", "stale", "missing", "waiting", "failed"]
"""fresh    the wanted artifact is there, intact and fit for use
stale    it has to be built: the reasons say what changed, or what happened to it
missing  it has to be built, and was never built before
waiting  only something above it has to be built; whether this one has to be, depends on what comes out there
failed   it is there, but a blocking check failed, so nothing below may use it
"""


@dataclass(frozen=True)
class AssetPlan:
    """One asset's state. `seconds` and `built` are of its last build, or of the nearest one to what is wanted.

    `fingerprint` is None while an input is to be built; `data_version` is that of the artifact which is there.
    """

    asset: str
    state: State
    reasons: tuple[str, ...] = ()
    fingerprint: str | None = None
    data_version: str | None = None
    seconds: float | None = None
    built: str | None = None


@dataclass(frozen=True)
class RefreshPlan:
    """Every asset in the order of the chain, and the versions of the observed sources.

    `target` stands for all that is wanted: recipe, code, libraries and sources. It does not change while the assets
    are built one after the other, nor when an artifact is lost.
    """

    assets: tuple[AssetPlan, ...]
    sources: Mapping[str, str]
    target: str

    @property
    def fresh(self) -> bool:
        """Whether there is nothing to do."""
        return not self.to_build

    @property
    def to_build(self) -> list[str]:
        """What a refresh has to run: all that is not fresh. What waits is reused if nothing came out differently."""
        return [asset.asset for asset in self.assets if asset.state != "fresh"]

    def as_json(self) -> dict[str, Any]:
        """The plan as values, for programs."""
        return {"fresh": self.fresh, **asdict(self)}


def make_plan(chain: Chain) -> RefreshPlan:
    """The plan of a recipe over its store. Reads and verifies, writes nothing. Raises `PipelineError` for bad input."""
    sources = {name: chain.version(name) for name in chain.sources}
    planned: dict[str, AssetPlan] = {}
    last_versions: dict[str, str] = {}
    for name in chain.stages:
        planned[name] = _plan_asset(chain, name, planned, last_versions)
        if planned[name].data_version:
            last_versions[name] = str(planned[name].data_version)
    declared = {name: chain.declared_version(name) for name in chain.stages}
    return RefreshPlan(tuple(planned.values()), sources, short_hash([declared, sources]))


def _plan_asset(chain: Chain, name: str, above: Mapping[str, AssetPlan], last_versions: Mapping[str, str]) -> AssetPlan:
    unsettled = [i for i in chain.stages[name].inputs if i in above and above[i].state != "fresh"]
    history = builds(chain.store, name)
    assumed = {i: last_versions.get(i, "unknown") for i in unsettled}
    wanted = chain.provenance(name, assumed)
    found, reason = chain.find(wanted)
    if found is None and not history and reason == NOT_BUILT:
        return AssetPlan(name, "missing", (NOT_BUILT,), None if unsettled else wanted.fingerprint)
    last = _last_build(wanted, found, history)
    state, reasons = _state(wanted, found, reason, last, unsettled)
    return AssetPlan(
        asset=name,
        state=state,
        reasons=tuple(reasons),
        fingerprint=None if unsettled else wanted.fingerprint,
        **{key: last[key] for key in ("data_version", "seconds", "built") if last},
    )


def _last_build(wanted: Provenance, found: Artifact | None, history: list[Build]) -> Build | None:
    same = [build for build in history if build["fingerprint"] == wanted.fingerprint]
    return found.manifest if found else same[-1] if same else nearest(wanted, history)


def _state(
    wanted: Provenance, found: Artifact | None, reason: str, last: Build | None, unsettled: list[str]
) -> tuple[State, list[str]]:
    waits = [f"waits for {', '.join(unsettled)}"]
    if found is not None:
        if found.failed_check and not unsettled:
            return "failed", [found.failed_check]
        return ("waiting", waits) if unsettled else ("fresh", [])
    if reason != NOT_BUILT:
        return "stale", [reason]
    assert last is not None, "a stage without a history is missing"
    if last["fingerprint"] == wanted.fingerprint:
        return "stale", ["artifact deleted"]
    own = differences(wanted, last, ignored_inputs=unsettled)
    if not own and not unsettled:
        own = ["fingerprinted in another way"]  # by another version of this package
    return ("stale", own) if own else ("waiting", waits)


def asked_for(chain: Chain, plan: RefreshPlan) -> dict[str, str]:
    """The fingerprint that each stage has, or has if what is built above it comes out as it did the last time."""
    assumed = {asset.asset: asset.data_version or "unknown" for asset in plan.assets if asset.state != "fresh"}
    return {name: chain.provenance(name, assumed).fingerprint for name in chain.stages}
