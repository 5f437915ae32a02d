"""`run`: build what is stale, each stage in a line that lives, and say at the end what came of it."""

import json
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ernie_pipeline.cli.build import build, interrupted, refusal, spent, warnings_of
from ernie_pipeline.cli.materialize import Ended
from ernie_pipeline.cli.output import ERROR, FRESH
from ernie_pipeline.cli.plan import plan_with_costs, reads, why
from ernie_pipeline.orchestration.up import dagster_home
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.forecast import Forecast
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.near import did_you_mean

LOGS, KEPT_LOGS = "logs", 20
"""Where Dagster's own log of each run goes, below the home, and how many are kept."""

GATE = "check gate"
"""In a warning on what the summary tells of the gate itself."""

Only = Annotated[str, typer.Option(metavar="ASSETS", help="of what is stale these alone, with commas between")]


def run(only: Only = "") -> int:
    """Build what is stale. A gate that is not passed is no failure: the summary says what it needs."""
    settings = Settings.from_environment()
    budget, (plan, costs) = Budget.from_environment(), plan_with_costs()
    assets = _chosen(plan, only)
    print(reads(settings), flush=True)
    if not plan.fresh:
        status = refusal(plan, costs, budget)
        if status is not None:
            return status
        if told := costs.words(budget):
            print(f"estimated for its jobs: {told}", flush=True)
    print(flush=True)
    dagster_home = _dagster_home(settings)
    if not assets:
        _show_fresh(plan)
        print(f"\nNothing is stale.\n\n{_end(settings, plan, dagster_home)}")
        return FRESH
    log = _new_log(settings)
    ended, name, failures = _built(assets, plan, costs, log, dagster_home)
    took = spent(name, budget, "This run")
    if ended.returncode == 0:
        now, _ = plan_with_costs()
        print(f"\n{_end(settings, now, dagster_home)}\n\n{took}")
        return FRESH
    print(f"\n{took}")
    if ended.signal:
        print(interrupted(plan, _again()), file=sys.stderr)
        return 128 + ended.signal
    for words in failures or ["the run failed before it began"]:
        print(f"error: {words}", file=sys.stderr)
    print(f"Dagster's whole log: {log}", file=sys.stderr)
    return ERROR


def _chosen(plan: RefreshPlan, only: str) -> list[str]:
    names = [asset.asset for asset in plan.assets]
    asked = [name.strip() for name in only.split(",") if name.strip()]
    for name in asked:
        if name not in names:
            hint = did_you_mean(name, names) or f"there are {', '.join(names)}"
            raise PipelineError(f"--only {only}: there is no asset {name!r}; {hint}")
    return [name for name in plan.to_build if not asked or name in asked]


def _built(
    assets: list[str], plan: RefreshPlan, costs: Forecast, log: Path, dagster_home: str | None
) -> tuple[Ended, str, list[str]]:
    """How Dagster ended, the name of its spending, and why stages failed."""
    from ernie_pipeline.cli.live import RunView  # it imports rich

    states = {
        asset.asset: (asset.state, why(asset, costs))
        if asset.asset in assets
        else ("reused" if asset.state == "fresh" else asset.state, "")
        for asset in plan.assets
    }
    home = {"DAGSTER_HOME": dagster_home} if dagster_home else {}
    with TemporaryDirectory(prefix="ernie-run-") as folder, log.open("w", encoding="utf-8") as output:
        told = Path(folder, "told.jsonl")
        loggers = {"told": {"config": {"file": str(told)}}, "console": {"config": {"log_level": "DEBUG"}}}
        config = json.dumps({"loggers": loggers})
        view = RunView(states, told)
        ended: Ended | None = None
        try:
            ended, name = build(
                assets, "--config-json", config, environment=home, watch=view.look, stdout=output, stderr=output
            )
        finally:
            view.end(interrupted=ended is None or ended.signal is not None)
    for words in (each for each in view.warnings if GATE not in each or ended.returncode):
        print(f"warning: {words}", flush=True)
    return ended, name, [f"{line.asset}: {line.failure}" for line in view.lines.values() if line.failure]


def _show_fresh(plan: RefreshPlan) -> None:
    width = max(len(asset.asset) for asset in plan.assets)
    for asset in plan.assets:
        print(f"{asset.asset:<{width}}  reused")


def _end(settings: Settings, plan: RefreshPlan, dagster_home: str | None) -> str:
    from ernie_pipeline.cli.summary import summary

    warned = [f"warning: {words}" for words in warnings_of(plan) if "is no champion" not in words]
    return "\n".join([*warned, summary(settings, plan, dagster_home)])


def _again() -> str:
    """This very command."""
    return shlex.join(["ernie", *sys.argv[1:]]) if sys.argv[1:2] else "ernie run"


def _new_log(settings: Settings) -> Path:
    settings.make_home()
    folder = settings.home / LOGS
    folder.mkdir(exist_ok=True)
    for old in sorted(folder.glob("run-*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    return folder / f"run-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"


def _dagster_home(settings: Settings) -> str | None:
    """Where Dagster keeps what it knows of the run: as the environment says, else in the home, so that its UI, opened
    there, shows what was built."""
    if told := os.environ.get("DAGSTER_HOME"):
        return told
    if settings.address:
        return None
    settings.make_home()
    return str(dagster_home(settings))
