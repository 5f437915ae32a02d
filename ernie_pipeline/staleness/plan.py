"""What is stale, and why: the same answer for the command line, the schedule, the sensor and Dagster's marks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.code import short_hash
from ernie_pipeline.staleness.reasons import differences, nearest
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER, EARLIER_ROUND
from ernie_pipeline.store.artifacts import NOT_BUILT, Artifact, Provenance, asset_of
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
    `refused`: why building it could not work now, see `Chain.refused`; `told`: what else is to be known, see
    `Chain.told`.
    """

    asset: str
    state: State
    reasons: tuple[str, ...] = ()
    fingerprint: str | None = None
    data_version: str | None = None
    seconds: float | None = None
    built: str | None = None
    refused: str = ""
    told: str = ""


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
    def refused(self) -> str:
        """Why not all of it can be built now, told before anything is; "" where nothing speaks against it."""
        return next((f"{asset.asset} cannot be built: {asset.refused}" for asset in self.assets if asset.refused), "")

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
    planned = plan_assets(chain)
    declared = {name: chain.declared_version(name) for name in chain.stages}
    return RefreshPlan(tuple(planned.values()), sources, short_hash([declared, sources]))


def plan_assets(chain: Chain, last: str = "") -> dict[str, AssetPlan]:
    """The plan of each stage by its name, in the order of the chain, up to the stage `last`."""
    planned: dict[str, AssetPlan] = {}
    earlier = plan_round_before(chain)
    for name in chain.stages:
        planned[name] = made = _plan_asset(chain, name, {**planned, **earlier})
        if name in chain.refused and made.state != "fresh":
            planned[name] = replace(made, refused=chain.refused[name](made.state != "waiting"))
        if name in chain.told and made.state == "fresh":
            planned[name] = replace(made, told=chain.told[name]())
        if name == last:
            break
    return planned


def plan_round_before(chain: Chain) -> dict[str, AssetPlan]:
    """The plan of what is read of the round before, by its name as an input."""
    if chain.earlier is None:
        return {}
    planned = plan_assets(chain.earlier, last=asset_of(EARLIER_ADAPTER))
    return {read: planned[asset_of(read)] for read in EARLIER_ROUND}


def _plan_asset(chain: Chain, name: str, above: Mapping[str, AssetPlan]) -> AssetPlan:
    """`above`: of the stages before it, and of what it reads of the round before."""
    unsettled = [i for i in chain.stages[name].inputs if i in above and above[i].state != "fresh"]
    history = builds(chain.store, name)
    assumed = {i: above[i].data_version or "unknown" for i in unsettled}
    wanted = chain.provenance(name, assumed)
    found, reason = chain.find(wanted)
    if found is None and not history and reason == NOT_BUILT:
        return AssetPlan(name, "missing", (NOT_BUILT,), None if unsettled else wanted.fingerprint)
    last = _last_build(wanted, found, history)
    state, reasons = _state(wanted, found, reason, last, {i: _waits_for(i, above[i]) for i in unsettled})
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
    wanted: Provenance, found: Artifact | None, reason: str, last: Build | None, unsettled: Mapping[str, str]
) -> tuple[State, list[str]]:
    """`unsettled`: inputs that are to be built, each with how to say that it is waited for."""
    waits = [f"waits for {', '.join(unsettled.values())}"]
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


def _waits_for(read: str, plan: AssetPlan) -> str:
    """The input's name; of the round before, which has no line of its own in the plan, with what is to be done."""
    told = read in EARLIER_ROUND and plan.state != "waiting"
    return f"{read}, {plan.state}: {'; '.join(plan.reasons)}" if told else read


def asked_for(chain: Chain, plan: RefreshPlan) -> dict[str, str]:
    """The fingerprint that each stage has, or has if what is built above it comes out as it did the last time."""
    planned = {**{asset.asset: asset for asset in plan.assets}, **plan_round_before(chain)}
    assumed = {read: asset.data_version or "unknown" for read, asset in planned.items() if asset.state != "fresh"}
    return {name: chain.provenance(name, assumed).fingerprint for name in chain.stages}
