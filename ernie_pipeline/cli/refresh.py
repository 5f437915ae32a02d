"""`refresh`: build what the plan says, and nothing else, within the budget."""

import os
import sys
import uuid
from collections.abc import Iterator

from ernie_pipeline.cli.materialize import materialize
from ernie_pipeline.cli.output import ERROR, FRESH, OVER_BUDGET
from ernie_pipeline.cli.plan import plan_with_costs, render_plan
from ernie_pipeline.cli.split_warnings import split_warnings
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.amounts import spent_words
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.spending import REFRESH, read_spent, total
from ernie_pipeline.utils.errors import PipelineError


def refresh() -> int:
    """Print the plan, and run Dagster on what is not fresh, then how things are; exit status 0 when all was built.

    4 when it was not started, because it is estimated to pass the budget. Raises `PipelineError`, and starts nothing,
    where the plan is refused. A gate that the adapter does not pass is no failure: the model is registered, not
    promoted, and a warning says why.
    """
    budget, (plan, costs) = Budget.from_environment(), plan_with_costs()
    print(render_plan(plan, costs, budget), flush=True)
    if plan.fresh:
        return FRESH
    if plan.refused:
        raise PipelineError(plan.refused)
    if over := costs.over(budget):
        print(f"error: {over}", file=sys.stderr)
        return OVER_BUDGET
    name = f"refresh-{uuid.uuid4().hex}"
    # under that name its steps record what they spend
    built = materialize(plan.to_build, {**os.environ, REFRESH: name}).returncode == 0
    if built:
        now, costs_now = plan_with_costs()
        print(render_plan(now, costs_now, budget), flush=True)
        for words in [*split_warnings(now, Settings.from_environment()), *not_promoted(now)]:
            print(f"warning: {words}", flush=True)
    print(_spent(name, budget), flush=True)
    return FRESH if built else ERROR  # Dagster's last lines say why


def not_promoted(plan: RefreshPlan) -> Iterator[str]:
    """Why what was registered is no champion; nothing where it is, or where nothing is registered."""
    registered = next(asset for asset in plan.assets if asset.asset == "registered_model")
    store = ArtifactStore(Settings.from_environment().store)
    artifact = store.find(registered.asset, registered.fingerprint or "")[0] if registered.state == "fresh" else None
    if not artifact:
        return
    said = artifact.json("registration.json")
    if not said.get("promoted", True):
        name, version, reasons = said["name"], said["version"], " ".join(said["reasons"])
        yield (
            f"{name} {version} is no champion, for the gate did not pass: {reasons} To make it one all the same: "
            f"ernie promote {version}"
        )


def _spent(name: str, budget: Budget) -> str:
    jobs = read_spent(Pins(Settings.from_environment().store, name).folder)
    if not jobs:
        return "This refresh spent no GPU time: no job was run."
    spent = total(jobs)
    waited = f"; its jobs waited {spent.waited_s:.0f} s for a place to run" if spent.waited_s >= 1 else ""
    of_cap = f", of {budget.text} at most" if budget.capped else ""
    return f"This refresh spent {spent_words(spent.counted, spent.gpu_seconds, budget.price)}{of_cap}{waited}."
