"""`plan`: what is stale, why, and what building it is likely to cost."""

from collections import Counter
from pathlib import Path
from typing import Any

from ernie_pipeline.cli.output import ERROR, FRESH, STALE, AsJson, print_answer
from ernie_pipeline.cli.settings_options import as_typed, with_options
from ernie_pipeline.cli.split_warnings import split_warnings
from ernie_pipeline.recipe.budget import CAP, Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.amounts import range_words, spent_words
from ernie_pipeline.staleness.forecast import Forecast, forecast
from ernie_pipeline.staleness.plan import AssetPlan, RefreshPlan, make_plan
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.staleness.warnings import gate_warnings
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.utils.text_table import aligned

SHOWN = 3
"""Of an asset's reasons: after an upgrade each module that changed is one."""


def plan(as_json: AsJson = False) -> int:
    """Print the plan; exit status 0 when everything is fresh, 3 when something is not, 1 when it could not be built.

    Raises `PipelineError` where the file of ERNIE_PIPELINE_GPU, which a refresh reads, says what cannot be.
    """
    settings = Settings.from_environment()
    if settings.gpu:
        from ernie_pipeline.orchestration.gpu_defaults import gpu_resource  # it imports Dagster

        gpu_resource(settings.gpu)
    budget, (made, costs) = Budget.from_environment(), plan_with_costs()
    warnings = [*split_warnings(made, settings), *gate_warnings(made, settings, with_options)]
    told = "".join(f"\nwarning: {words}" for words in warnings)
    values = {**read_values(settings), **plan_values(made, costs, budget), "warnings": warnings}
    print_answer(as_json, values, f"{where_looked(settings)}\n\n{render_plan(made, costs, budget)}{told}")
    if made.refused:
        return ERROR
    return FRESH if made.fresh else STALE


def read_values(settings: Settings) -> dict[str, str | None]:
    """Which home, recipe and rows are read, for programs."""
    return {"home": settings.address or str(settings.home), "recipe": settings.recipe, "source": settings.source}


def reads(settings: Settings) -> str:
    """Which recipe and home are read, in a line: a wrong folder is the first thing to look for."""
    rows = f", rows of {settings.source}" if settings.source else ""
    recipe = Path(settings.recipe).absolute() if Path(settings.recipe).is_file() else settings.recipe
    return f"recipe {recipe}{rows}, home {settings.address or settings.home}"


def where_looked(settings: Settings) -> str:
    """The same and, where nothing stands in that home, this."""
    return "\n".join(filter(None, [reads(settings), nothing_there(settings)]))


def nothing_there(settings: Settings) -> str:
    """That no artifact is in the home, "" where there is; of one in a bucket, its cache is no measure."""
    if settings.address or ArtifactStore(settings.store).stages():
        return ""
    return f"there is no artifact in {settings.store}; if you have built elsewhere, name that home with --home"


def plan_with_costs() -> tuple[RefreshPlan, Forecast]:
    """The plan of the recipe that the environment names, and what it is likely to cost."""
    chain = open_chain(Settings.from_environment())
    made = make_plan(chain)
    return made, forecast(chain, made)


def plan_values(plan: RefreshPlan, costs: Forecast, budget: Budget) -> dict[str, Any]:
    """The plan as values, for programs: each asset with its `cost` and `estimate`, and `budget` for them together."""
    values = plan.as_json()
    assets = [{**asset, **costs.asset_as_json(asset["asset"])} for asset in values["assets"]]
    return {**values, "assets": assets, "budget": costs.as_json(budget)}


def render_plan(plan: RefreshPlan, costs: Forecast | None = None, budget: Budget | None = None) -> str:
    """The plan as text for a person: a line for each asset, and what it comes to.

    With `costs`, what the jobs of the last build cost, and what those to come are likely to.
    """
    costs, budget = costs or Forecast(), budget or Budget()
    more = {"cost": _cost} if costs.costs else {}
    more |= {"estimate": _estimate} if costs.estimates else {}
    rows = [("asset", "state", "last build", *more, "why")]
    for asset in plan.assets:
        seconds = "" if asset.seconds is None else f"{asset.seconds:.1f} s"
        told = (words(costs, asset.asset, budget) for words in more.values())
        rows.append((asset.asset, asset.state, seconds, *told, why(asset, costs)))
    notes = "".join(f"\nnote: {asset.told}" for asset in plan.assets if asset.told)
    return f"{aligned(rows)}\n\n{_summary(plan, costs, budget)}{notes}"


def why(asset: AssetPlan, costs: Forecast) -> str:
    """Its reasons, the first of many, and what is left of an interrupted build."""
    left = costs.goes_on.get(asset.asset)
    more = len(asset.reasons) - SHOWN
    told = [*asset.reasons[:SHOWN], f"and {more} more (ernie plan --json)"] if more > 1 else [*asset.reasons]
    return "; ".join([*told, *([left] if left else [])])


def _cost(costs: Forecast, asset: str, budget: Budget) -> str:
    cost = costs.costs.get(asset)
    return spent_words(cost.seconds, cost.gpu_seconds, budget.price) if cost else ""


def _estimate(costs: Forecast, asset: str, budget: Budget) -> str:
    estimate = costs.estimates.get(asset)
    if estimate is None:
        return ""
    if estimate.seconds is None or estimate.gpu_seconds is None:
        return "unknown"
    told = range_words(estimate.seconds, estimate.gpu_seconds, budget.price)
    return f"if built, {told}" if estimate.waits else told


def _summary(plan: RefreshPlan, costs: Forecast, budget: Budget) -> str:
    if plan.fresh:
        return "Everything is fresh: there is nothing to build."
    states = Counter(asset.state for asset in plan.assets if asset.state != "fresh")
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    seconds = sum(asset.seconds or 0 for asset in plan.assets if asset.state != "fresh")
    took = f" Their last builds took {seconds:.0f} s together." if seconds >= 1 else ""
    if plan.refused:
        refused = as_typed(plan.refused)
        return f"{counts}.{took} {refused}{'' if chr(10) in refused else '.'}"  # it may end with lines to paste
    return f'{counts}.{took} Build them with "{with_options("ernie run")}".{_forecast(costs, budget)}'


def _forecast(costs: Forecast, budget: Budget) -> str:
    """What the jobs are likely to cost together, from what, and what of a cap that is."""
    if not costs.estimates:
        return ""
    known = {name: estimate for name, estimate in costs.estimates.items() if estimate.known}
    lines = [f"Estimated for its jobs: {costs.words(budget)}."] if known else []
    lines += [f"  {name}: {estimate.basis}" for name, estimate in known.items()]
    bases = {each.basis: None for each in costs.estimates.values() if not each.known}
    for basis in bases:
        names = ", ".join(name for name, each in costs.estimates.items() if each.basis == basis)
        lines.append(f"No estimate for {names}: {basis}.")
    if costs.over(budget):
        lines.append(f"That is above {CAP} = {budget.text}: a refresh is not started.")
    elif budget.passed_by(costs.seconds[1], costs.gpu_seconds[1]):
        lines.append(f"It may pass {CAP} = {budget.text}: it is stopped there, and what it has made is kept.")
    return "\n" + "\n".join(lines)
