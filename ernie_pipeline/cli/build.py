"""What `run` and `refresh` have in common: from a plan to what was spent, within the budget, and what an interrupt
leaves."""

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ernie_pipeline.cli.materialize import Ended, materialize
from ernie_pipeline.cli.output import OVER_BUDGET
from ernie_pipeline.cli.plan import plan_with_costs
from ernie_pipeline.cli.settings_options import with_options
from ernie_pipeline.cli.split_warnings import split_warnings
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.amounts import spent_words
from ernie_pipeline.staleness.forecast import Forecast
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.staleness.warnings import gate_warnings
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.spending import REFRESH, read_spent, total
from ernie_pipeline.utils.errors import PipelineError


def refusal(plan: RefreshPlan, costs: Forecast, budget: Budget) -> int | None:
    """The exit status where the build is not to start, said why; None where it is.

    Raises `PipelineError` where the plan says that not all of it can be built.
    """
    if plan.refused:
        raise PipelineError(plan.refused)
    if over := costs.over(budget):
        print(f"error: {over}", file=sys.stderr)
        return OVER_BUDGET
    return None


def build(
    assets: list[str],
    *more: str,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[], None] | None = None,
    **started: Any,
) -> tuple[Ended, str]:
    """Let Dagster build them, see `materialize`; how it ended, and a name under which its steps record their costs."""
    name = f"refresh-{uuid.uuid4().hex}"
    variables = {**os.environ, **(environment or {}), REFRESH: name}
    if (home := variables.get("DAGSTER_HOME")) and Path(home).is_dir():
        from ernie_pipeline.orchestration.left_slots import free_left_slots  # it imports Dagster

        free_left_slots(Path(home))
    return materialize(assets, variables, *more, watch=watch, **started), name


def spent(name: str, budget: Budget, what: str) -> str:
    """What the jobs of a build took, in a sentence that begins with `what`."""
    jobs = read_spent(Pins(Settings.from_environment().store, name).folder)
    if not jobs:
        return f"{what} spent no GPU time: no job was run."
    found = total(jobs)
    waited = f"; its jobs waited {found.waited_s:.0f} s for a place to run" if found.waited_s >= 1 else ""
    of_cap = f", of {budget.text} at most" if budget.capped else ""
    return f"{what} spent {spent_words(found.counted, found.gpu_seconds, budget.price)}{of_cap}{waited}."


def warnings_of(plan: RefreshPlan) -> list[str]:
    """What is to be seen besides that all was built."""
    settings = Settings.from_environment()
    return [*split_warnings(plan, settings), *gate_warnings(plan, settings, with_options)]


def interrupted(before: RefreshPlan, command: str) -> str:
    """What an interrupt has left, and how to go on, by the plan of now. `before`: the plan that was begun with."""
    try:
        now, costs = plan_with_costs()
    except PipelineError as error:
        return f"interrupted: what was built is kept; go on with: {command} ({error})"
    built = [name for name in before.to_build if name not in now.to_build]
    parts = [f"{', '.join(built)} {'are' if len(built) > 1 else 'is'} built and kept" if built else ""]
    parts += [f"{name} {words}" for name, words in costs.goes_on.items()]
    left = "; ".join(filter(None, parts)) or "nothing had been built yet"
    return f"interrupted: {left}. Go on with: {command}"
