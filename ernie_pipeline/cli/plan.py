"""`plan`: what is stale, and why."""

import argparse
from collections import Counter

from ernie_pipeline.cli.output import FRESH, STALE, print_answer
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import RefreshPlan, make_plan
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.utils.text_table import aligned


def plan(options: argparse.Namespace) -> int:
    """Print the plan; exit status 0 when everything is fresh, 3 when something is not."""
    made = make_plan(open_chain(Settings.from_environment()))
    print_answer(options, made.as_json(), render_plan(made))
    return FRESH if made.fresh else STALE


def render_plan(plan: RefreshPlan) -> str:
    """The plan as text for a person: a line for each asset, and what it comes to."""
    rows = [("asset", "state", "last build", "why")]
    for asset in plan.assets:
        seconds = "" if asset.seconds is None else f"{asset.seconds:.1f} s"
        rows.append((asset.asset, asset.state, seconds, "; ".join(asset.reasons)))
    return f"{aligned(rows)}\n\n{_summary(plan)}"


def _summary(plan: RefreshPlan) -> str:
    if plan.fresh:
        return "Everything is fresh: there is nothing to build."
    states = Counter(asset.state for asset in plan.assets if asset.state != "fresh")
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    seconds = sum(asset.seconds or 0 for asset in plan.assets if asset.state != "fresh")
    took = f" Their last builds took {seconds:.0f} s together." if seconds else ""
    return f'{counts}.{took} Build them with "python -m ernie_pipeline refresh".'
