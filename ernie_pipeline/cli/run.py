"""`run`: build what is stale, each stage in a line that lives, and say at the end what came of it."""

import json
import os
import shlex
import shutil
import sys
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ernie_pipeline.cli.build import build, interrupted, refusal, spent, warnings_of
from ernie_pipeline.cli.materialize import Ended
from ernie_pipeline.cli.output import ERROR, FRESH, AsJson
from ernie_pipeline.cli.plan import plan_with_costs, read_values, reads, why
from ernie_pipeline.cli.settings_options import as_typed
from ernie_pipeline.cli.summary import summary, summary_values
from ernie_pipeline.orchestration.up import dagster_home, warnings_of_home
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.forecast import Forecast
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence
from ernie_pipeline.utils.near import did_you_mean

if TYPE_CHECKING:
    from ernie_pipeline.cli.live import RunView

LOGS, KEPT_LOGS = "logs", 20
"""Where Dagster's own log of each run goes, below the home, and how many are kept."""

GATE = "check gate"
"""In a warning on what the summary tells of the gate itself."""

FULL = 2**24
"""Bytes: with fewer free on its disk Dagster's databases may have no room for what failed."""

Only = Annotated[str | None, typer.Option(metavar="ASSETS", help="of what is stale these alone, with commas between")]


@dataclass
class Outcome:
    """What came of a run. `plan`: how things are now; `log`: Dagster's own, where one was started."""

    status: int
    plan: RefreshPlan
    built: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    spent: str = ""
    log: Path | None = None
    dagster_home: str | None = None

    def as_json(self, settings: Settings) -> dict[str, Any]:
        """As values, for programs."""
        return {
            **read_values(settings),
            "exit_status": int(self.status),
            "fresh": self.plan.fresh,
            "assets": {asset.asset: asset.state for asset in self.plan.assets},
            "built": self.built,
            "failures": self.failures,
            "warnings": self.warnings,
            "spent": self.spent,
            "log": self.log and str(self.log),
            "dagster_home": self.dagster_home,
            **summary_values(settings, self.plan),
        }


def run(only: Only = None, as_json: AsJson = False) -> int:
    """Build what is stale. A gate that is not passed is no failure: the summary says what it needs.

    With --json, standard output has one JSON object at the end, and all else goes to standard error.
    """
    settings = Settings.from_environment()
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        outcome = _run(settings, only)
    if as_json:
        print(json.dumps(outcome.as_json(settings), indent=1))
    return outcome.status


def _run(settings: Settings, only: str | None) -> Outcome:
    """The outcome, all of it said."""
    budget, (plan, costs) = Budget.from_environment(), plan_with_costs()
    assets = _chosen(plan, only)
    costs = replace(costs, estimates={name: each for name, each in costs.estimates.items() if name in assets})
    print(reads(settings), flush=True)
    if not plan.fresh:
        status = refusal(plan, costs, budget)
        if status is not None:
            return Outcome(status, plan)
        if told := costs.words(budget):
            print(f"estimated for its jobs: {told}", flush=True)
    print(flush=True)
    dagster_home = _dagster_home(settings)
    if not assets:
        _show_fresh(plan)
        print(f"\nNothing is stale.\n\n{_end(settings, plan, dagster_home)}")
        return Outcome(FRESH, plan, warnings=warnings_of(plan), dagster_home=dagster_home)
    return _build(settings, assets, plan, costs, budget, dagster_home)


def _build(
    settings: Settings,
    assets: list[str],
    plan: RefreshPlan,
    costs: Forecast,
    budget: Budget,
    dagster_home: str | None,
) -> Outcome:
    log, places = _new_log(settings), warnings_of_home(settings)
    for words in places:
        print(f"warning: {words}\n", flush=True)
    ended, name, view = _watched(assets, plan, costs, log, dagster_home)
    outcome = Outcome(ERROR, plan, spent=spent(name, budget, "This run"), log=log, dagster_home=dagster_home)
    outcome.built = [line.asset for line in view.lines.values() if line.state == "built"]
    outcome.warnings = [*places, *(words for words in view.warnings if GATE not in words or ended.returncode)]
    if ended.returncode == 0:
        outcome.status, (outcome.plan, _) = FRESH, plan_with_costs()
        outcome.warnings += [words for words in warnings_of(outcome.plan) if words not in outcome.warnings]
        print(f"\n{_end(settings, outcome.plan, dagster_home)}\n\n{outcome.spent}")
        return outcome
    print(f"\n{outcome.spent}")
    if ended.signal:
        print(interrupted(plan, _again()), file=sys.stderr)
        outcome.status = 128 + ended.signal
    else:
        told = [as_typed(f"{line.asset}: {line.failure}") for line in view.lines.values() if line.failure]
        outcome.failures = told or [_untold(view, log)]
        for words in outcome.failures:
            print(f"error: {words}", file=sys.stderr)
        print(f"Dagster's whole log: {log}", file=sys.stderr)
    with suppress(PipelineError):
        outcome.plan, _ = plan_with_costs()
    return outcome


def _untold(view: "RunView", log: Path) -> str:
    """Why a run failed of which no stage has told it: Dagster has to write it down before it can be told."""
    if shutil.disk_usage(log.parent).free < FULL:
        return disk_full_sentence(str(log.parent.parent))
    stopped = [name for name, line in view.lines.items() if line.state == "stopped"]
    return f"{stopped[0]} stopped, and Dagster tells no reason" if stopped else "the run failed before it began"


def _chosen(plan: RefreshPlan, only: str | None) -> list[str]:
    if only is not None and not only.strip(" ,"):
        raise PipelineError("--only is given without a value; name one, or leave --only out")
    names = [asset.asset for asset in plan.assets]
    asked = [name.strip() for name in (only or "").split(",") if name.strip()]
    for name in asked:
        if name not in names:
            hint = did_you_mean(name, names) or f"there are {', '.join(names)}"
            raise PipelineError(f"--only {only}: there is no asset {name!r}; {hint}")
    if before := [name for name in plan.to_build if name not in asked and name in _read_by(asked)]:
        whole = ",".join(name for name in names if name in {*asked, *before})
        verb = "is" if len(before) == 1 else "are"
        raise PipelineError(
            f"--only {only}: {', '.join(before)} {verb} read there and not fresh; build all: --only {whole}"
        )
    return [name for name in plan.to_build if not asked or name in asked]


def _read_by(assets: list[str]) -> set[str]:
    """What the assets read, and what that was made from."""
    inputs = {name for asset in assets if asset in STAGES for name in STAGES[asset].inputs}
    return inputs | (_read_by([*inputs]) if inputs else set())


def _watched(
    assets: list[str], plan: RefreshPlan, costs: Forecast, log: Path, dagster_home: str | None
) -> tuple[Ended, str, "RunView"]:
    """How Dagster ended, the name of its spending, and what was seen of its stages."""
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
    return ended, name, view


def _show_fresh(plan: RefreshPlan) -> None:
    width = max(len(asset.asset) for asset in plan.assets)
    for asset in plan.assets:
        print(f"{asset.asset:<{width}}  reused")


def _end(settings: Settings, plan: RefreshPlan, dagster_home: str | None) -> str:
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
    if settings.address and not os.environ.get("DAGSTER_HOME"):
        return None
    settings.make_home()
    return str(dagster_home(settings))
