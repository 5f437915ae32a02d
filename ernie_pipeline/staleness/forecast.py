"""What a refresh is likely to cost: of each asset whose work is a job, from its earlier builds and what is to do."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ernie_pipeline.launch.torchrun import gpus_here
from ernie_pipeline.recipe.budget import CAP, Budget
from ernie_pipeline.staleness.amounts import Range, cap_words, range_words
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.cost import SAMPLES, Cost, cost_of
from ernie_pipeline.staleness.goes_on import goes_on
from ernie_pipeline.staleness.left_to_do import Left, answers_left, count_answers_left, max_new_tokens, samples_left
from ernie_pipeline.staleness.plan import AssetPlan, RefreshPlan, plan_assets, plan_round_before
from ernie_pipeline.staleness.reasons import nearest
from ernie_pipeline.staleness.stage import EARLIER_ROUND
from ernie_pipeline.staleness.suites import answered_by_job, suite_of
from ernie_pipeline.store.artifacts import Provenance, asset_of
from ernie_pipeline.store.history import Build, builds
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import as_shown

JOBS = ("verified_solutions", "qlora_adapter", "base_evaluation", "adapter_evaluation")
"""The assets that are made by jobs on a GPU, besides the answers to suites."""
DOUBT = 2.0
"""A build with another backend, quantization, LoRA or version of a library may be so many times slower or faster."""
LOOKED_UP_ABOVE_S = 60.0
"""To look up which answers are kept takes seconds: it is done where otherwise so many are in doubt."""


@dataclass(frozen=True)
class Estimate:
    """Of one asset. `seconds` and `gpu_seconds` are as those of `Cost`, the least and the most; None: unknown.

    `waits`: it is spent only if something above comes out differently. `basis`: from what it was estimated, or what
    would be needed to.
    """

    seconds: Range | None
    gpu_seconds: Range | None
    waits: bool
    basis: str

    @property
    def known(self) -> bool:
        """Whether there is anything to go by."""
        return self.seconds is not None


@dataclass(frozen=True)
class Forecast:
    """`estimates` of what is to be built by jobs, `costs` of what was built last, each by asset.

    `goes_on`: of those to be built, what is left of an interrupted build, in words.
    """

    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    goes_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> Range:
        """The least and the most that is to be spent together, as far as that is known; what waits may cost nothing."""
        return _together([(each.seconds, each.waits) for each in self.estimates.values()])

    @property
    def gpu_seconds(self) -> Range:
        """The same on GPUs."""
        return _together([(each.gpu_seconds, each.waits) for each in self.estimates.values()])

    @property
    def unknown(self) -> list[str]:
        """The assets of which nothing can be said."""
        return [name for name, each in self.estimates.items() if not each.known]

    def over(self, budget: Budget) -> str:
        """Why the refresh is not to start: a sentence, or "" while the least that it costs is within the cap."""
        least, gpu_least = self.seconds[0], self.gpu_seconds[0]
        if not budget.passed_by(least, gpu_least):
            return ""
        more = " or more" if self.seconds[1] > least or self.unknown else ""
        return (
            f"the refresh is not started: it is estimated at {cap_words(budget, least, gpu_least)}{more}, and "
            f"{CAP} = {budget.text} is its cap; raise it, or build a part at a time with "
            '"dagster asset materialize --select"'
        )

    def words(self, budget: Budget) -> str:
        """The sum in words, "" where nothing is to be done by jobs."""
        if not self.estimates:
            return ""
        told = range_words(self.seconds, self.gpu_seconds, budget.price) if self.seconds[1] else ""
        unknown = f"unknown for {', '.join(self.unknown)}" if self.unknown else ""
        return ", ".join(filter(None, [told, unknown]))

    def as_json(self, budget: Budget) -> dict[str, Any]:
        """The sum as values, for programs."""
        price = budget.price
        return {
            "seconds": self.seconds,
            "gpu_seconds": self.gpu_seconds,
            "money": [price.of(each) for each in self.gpu_seconds] if price else None,
            "currency": price.currency if price else None,
            "unknown": self.unknown,
            "cap": budget.text or None,
            "over": self.over(budget) or None,
        }

    def asset_as_json(self, name: str) -> dict[str, Any]:
        """What it says of one asset: `cost`, `estimate` and `goes_on`, each None where there is none."""
        cost, estimate = self.costs.get(name), self.estimates.get(name)
        return {
            "cost": cost.model_dump() if cost else None,
            "estimate": asdict(estimate) if estimate else None,
            "goes_on": self.goes_on.get(name),
        }


def forecast(chain: Chain, plan: RefreshPlan) -> Forecast:
    """The forecast of a plan. Writes nothing. Raises `PipelineError` as `make_plan` does."""
    planned = {asset.asset: asset for asset in plan.assets}
    estimates = _estimates(chain, planned)
    found = {name: _last_cost(chain, planned[name]) for name in planned if name in jobs_of(chain)}
    return Forecast(estimates, {name: cost for name, cost in found.items() if cost}, goes_on(chain, plan))


def estimate_build(chain: Chain, name: str) -> Estimate | None:
    """What a stage whose inputs stand is likely to cost, said at once; None for one that no job makes."""
    return _estimate(chain, AssetPlan(name, "stale"), {}, look_up=False) if _by_job(chain, name) else None


def standing_costs(chain: Chain) -> dict[str, Cost]:
    """What the artifacts that the recipe asks for cost, by asset; of rounds before as "qlora_adapter.round_1".

    Without the answers to suites, which no model waits for.
    """
    found: dict[str, Cost] = {}
    for each in chain.rounds():
        for name in ("verified_solutions", "qlora_adapter") if each is not chain else JOBS:
            with suppress(PipelineError):  # it need not be there
                if cost := cost_of(each.artifact(name).manifest):
                    found[name if each is chain else f"{name}.round_{each.recipe.solutions.rounds}"] = cost
    return found


def _estimates(chain: Chain, planned: Mapping[str, AssetPlan]) -> dict[str, Estimate]:
    above = {**planned, **plan_round_before(chain)}
    found = {
        name: _estimate(chain, asset, above)
        for name, asset in planned.items()
        if asset.state not in ("fresh", "failed") and _by_job(chain, name)
    }
    if chain.earlier and "verified_solutions" in found:  # the step of that asset builds the rounds before, too
        last = asset_of(EARLIER_ROUND[-1])
        before = _estimates(chain.earlier, plan_assets(chain.earlier, last=last))
        parts = [each for name, each in before.items() if name in ("verified_solutions", "qlora_adapter")]
        found["verified_solutions"] = _sum_of([*parts, found["verified_solutions"]])
    return found


def jobs_of(chain: Chain) -> tuple[str, ...]:
    """The assets of the chain that are made by jobs on a GPU."""
    return (*JOBS, *filter(answered_by_job, chain.stages))


def _by_job(chain: Chain, name: str) -> bool:
    return name in jobs_of(chain) and (name != "verified_solutions" or chain.stages[name].by_row is not None)


def _last_cost(chain: Chain, asset: AssetPlan) -> Cost | None:
    """Of the build that the plan tells the seconds of."""
    history = builds(chain.store, asset.asset) if asset.built else []
    return next((cost_of(build) for build in reversed(history) if build["built"] == asset.built), None)


def _estimate(chain: Chain, asset: AssetPlan, above: Mapping[str, AssetPlan], look_up: bool = True) -> Estimate:
    name = asset.asset
    unsettled = [i for i in chain.stages[name].inputs if i in above and above[i].state != "fresh"]
    waits = asset.state == "waiting"
    try:
        wanted = chain.provenance(name, {i: above[i].data_version or "unknown" for i in unsettled})
        comparable = _comparable(chain, wanted)
        if not comparable:
            return Estimate(None, None, waits, "never built with this base model; one build of it makes an estimate")
        return _from_builds(chain, wanted, comparable, unsettled, waits, look_up and not unsettled)
    except (PipelineError, OSError, ValueError, KeyError, TypeError) as error:
        return Estimate(None, None, waits, f"what is to be done cannot be told: {error}")


def _comparable(chain: Chain, wanted: Provenance) -> list[tuple[Build, Cost]]:
    """The builds with the same base model, and of these those on what is here, a GPU or a CPU, if there are any."""
    found = [(build, cost_of(build) or _unmeasured(build)) for build in builds(chain.store, wanted.stage)]
    same = [(build, cost) for build, cost in found if _base(build["inputs"]) == _base(wanted.inputs)]
    here = [(build, cost) for build, cost in same if (cost.gpu_seconds > 0) == (gpus_here() > 0)]
    return here or same


def _base(inputs: Mapping[str, str]) -> str:
    return inputs.get("base_model", "")


def _unmeasured(build: Build) -> Cost:
    """Of a build from before costs were measured."""
    seconds = float(build["seconds"])
    return Cost(seconds=seconds, gpu_seconds=seconds if gpus_here() else 0.0, jobs=1, overhead_s=seconds)


def _from_builds(
    chain: Chain,
    wanted: Provenance,
    comparable: Sequence[tuple[Build, Cost]],
    unsettled: Sequence[str],
    waits: bool,
    look_up: bool,
) -> Estimate:
    costs = {id(build): cost for build, cost in comparable}
    measured = [build for build, cost in comparable if cost.made and cost.amount]
    build = nearest(wanted, measured or [build for build, _ in comparable])
    assert build is not None, "there is at least one"
    cost, doubt = costs[id(build)], 1.0 if _alike(wanted, build) else DOUBT
    if not measured:
        seconds, basis = (0.0, cost.seconds), "all that is known is how long a whole build took"
        doubt = DOUBT
    else:
        left = (samples_left if cost.unit == SAMPLES else answers_left)(chain, wanted, cost, build, unsettled)
        few, many = sorted((1.0, _longer(wanted, build)))
        rate = cost.work_s / cost.made
        if look_up and rate * (left.most - left.least) > LOOKED_UP_ABOVE_S:
            left = count_answers_left(chain, wanted, left)
        seconds = (cost.overhead_s + rate * few * left.least, cost.overhead_s + rate * many * left.most)
        basis = _basis(left, cost, build, unsettled)
    low, high = seconds[0] / doubt, seconds[1] * doubt
    on_gpu = cost.gpu_seconds / cost.seconds if cost.seconds else 0.0
    return Estimate((round(low, 1), round(high, 1)), (round(low * on_gpu, 1), round(high * on_gpu, 1)), waits, basis)


def _basis(left: Left, cost: Cost, build: Build, unsettled: Sequence[str]) -> str:
    to_do = f"{left.most:.0f}" if left.least == left.most else f"{left.least:.0f} to {left.most:.0f}"
    on = f" ({as_shown(cost.device)})" if cost.device else ""
    rows_from = [n for n in unsettled if n in ("math_split", "verified_solutions") or suite_of(n)]
    if_so = f", if {' and '.join(rows_from)} comes out as large as before" if rows_from else ""
    return (
        f"{to_do} of {left.amount:.0f} {cost.unit} to do{if_so}; the build of {build['built'][:10]}{on} made "
        f"{cost.made} in {cost.work_s:.1f} s and took {cost.overhead_s:.1f} s besides"
    )


def _alike(wanted: Provenance, build: Build) -> bool:
    """Whether nothing differs that decides how fast a unit of work is done, beyond what is scaled."""
    return _pace(wanted.recipe) == _pace(build["recipe"]) and dict(wanted.libraries) == build["libraries"]


def _pace(recipe: Mapping[str, Any]) -> list[Any]:
    backend = recipe.get("training.backend") or recipe.get("training", {}).get("backend")
    return [backend, *(recipe.get(section) for section in ("quantization", "lora", "grpo"))]


def _longer(wanted: Provenance, build: Build) -> float:
    """How many times longer an answer may be than it was allowed to be in that build; shorter, below 1."""
    new, old = max_new_tokens(wanted.stage, wanted.recipe), max_new_tokens(wanted.stage, build["recipe"])
    return new / old if new and old else 1.0


def _together(parts: Sequence[tuple[Range | None, bool]]) -> Range:
    known = [(each, waits) for each, waits in parts if each]
    return round(sum(each[0] for each, waits in known if not waits), 1), round(sum(each[1] for each, _ in known), 1)


def _sum_of(parts: Sequence[Estimate]) -> Estimate:
    """Of several artifacts of one asset's step; unknown where one of them is."""
    if unknown := next((each for each in parts if not each.known), None):
        return unknown
    seconds, gpu_seconds = (
        _together([(each.seconds, each.waits) for each in parts]),
        _together([(each.gpu_seconds, each.waits) for each in parts]),
    )
    basis = parts[-1].basis if len(parts) == 1 else f"{parts[-1].basis}; with the rounds before it"
    return Estimate(seconds, gpu_seconds, all(each.waits for each in parts), basis)
