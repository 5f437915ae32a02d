"""`python -m ernie_pipeline plan | refresh | store`: what is stale and why, building just that, keeping the store.

Exit status: 0 all is fresh (or done), 3 something is stale (or damaged), 1 an error.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import asked_for, make_plan, render
from ernie_pipeline.staleness.stages import asked_base, open_chain, registered_as
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.housekeeping import artifacts as housekeeping
from ernie_pipeline.store.housekeeping import quantized_bases as bases
from ernie_pipeline.utils.errors import PipelineError

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
    _print(options, plan.as_json(), render(plan))
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


def _list(options: argparse.Namespace) -> int:
    contents = _contents(Settings.from_environment())
    _print(options, contents.as_json(), housekeeping.render_contents(contents))
    return FRESH


def _verify(options: argparse.Namespace) -> int:
    damaged = housekeeping.verify(ArtifactStore(Settings.from_environment().store))
    _print(options, {"damaged": [asdict(damage) for damage in damaged]}, housekeeping.render_damage(damaged))
    return STALE if damaged else FRESH


def _prune(options: argparse.Namespace) -> int:
    settings = Settings.from_environment()
    pruned = housekeeping.prune(ArtifactStore(settings.store), _contents(settings), options.delete)
    _print(options, asdict(pruned), housekeeping.render_pruned(pruned))
    return FRESH


def _contents(settings: Settings) -> housekeeping.Contents:
    chain = open_chain(settings, ask_registry=False)  # one that does not answer must not stop this
    held = {"registered_model": partial(registered_as, settings)}
    packed = bases.take_stock(settings.store, partial(asked_base, chain))
    try:
        asked, unknown = asked_for(chain, make_plan(chain)), ""
    except PipelineError as error:  # a source that is away must not stop this either
        asked, unknown = dict.fromkeys(chain.stages, ""), str(error)
    return housekeeping.take_stock(chain.store, asked, held, packed, unknown)


def _print(options: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    print(json.dumps(values, indent=1) if options.json else text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ernie_pipeline", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="what is stale, and why; exit status 3 when something is")
    refresh = commands.add_parser("refresh", help="build what the plan says, and nothing else")
    refresh.set_defaults(run=_refresh)
    store = commands.add_parser("store", help="what is in the store, whether it is intact, and removing what is idle")
    keeping = store.add_subparsers(required=True, metavar="COMMAND")
    contents = keeping.add_parser("list", help="every artifact and quantized base model, and why prune would keep it")
    verify = keeping.add_parser("verify", help="read every file again; exit status 3 when something is damaged")
    prune = keeping.add_parser("prune", help="say what nothing needs: not the recipe, a newest build or the registry")
    prune.add_argument("--delete", action="store_true", help="and remove it")
    for command, run in ((plan, _plan), (contents, _list), (verify, _verify), (prune, _prune)):
        command.add_argument("--json", action="store_true", help="for programs")
        command.set_defaults(run=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
