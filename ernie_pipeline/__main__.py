"""`python -m ernie_pipeline plan | refresh | store`: what is stale and why, building just that, keeping the store.

Exit status: 0 all is fresh (or done), 3 something is stale (or damaged), 1 an error.
"""

import argparse
import json
import subprocess
import sys

from ernie_pipeline.errors import PipelineError
from ernie_pipeline.plan import make_plan, render
from ernie_pipeline.settings import Settings
from ernie_pipeline.stages import open_chain

FRESH, ERROR, STALE = 0, 1, 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR


def _plan(options: argparse.Namespace) -> int:
    plan = make_plan(open_chain(Settings.from_environment()))
    print(json.dumps(plan.as_json(), indent=1) if options.json else render(plan))
    return FRESH if plan.fresh else STALE


def _refresh(options: argparse.Namespace) -> int:
    plan = make_plan(open_chain(Settings.from_environment()))
    print(render(plan), flush=True)
    if plan.fresh:
        return FRESH
    selection = ",".join(plan.to_build)
    command = ["-m", "dagster", "asset", "materialize", "--select", selection, "-m", "ernie_pipeline.definitions"]
    run = subprocess.Popen([sys.executable, *command])
    while True:
        try:
            return FRESH if run.wait() == 0 else ERROR
        except KeyboardInterrupt:
            continue  # Dagster was interrupted by the same key and ends its steps; wait for it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ernie_pipeline", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="what is stale, and why; exit status 3 when something is")
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.set_defaults(run=_plan)
    refresh = commands.add_parser("refresh", help="build what the plan says, and nothing else")
    refresh.set_defaults(run=_refresh)
    return parser


if __name__ == "__main__":
    sys.exit(main())
