"""`refresh`: build what the plan says, and nothing else."""

import argparse
import subprocess
import sys

from ernie_pipeline.cli.output import ERROR, FRESH
from ernie_pipeline.cli.plan import render_plan
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.staleness.stages import open_chain


def refresh(options: argparse.Namespace) -> int:
    """Print the plan, and run Dagster on what is not fresh, then how things are; exit status 0 when all was built.

    A gate that the adapter does not pass is no failure: the model is registered, and not promoted.
    """
    plan = make_plan(open_chain(Settings.from_environment()))
    print(render_plan(plan), flush=True)
    if plan.fresh:
        return FRESH
    selection = ",".join(plan.to_build)
    command = ["-m", "dagster", "asset", "materialize", "--select", selection, "-m", "ernie_pipeline.definitions"]
    run = subprocess.Popen([sys.executable, *command])
    while True:
        try:
            built = run.wait() == 0
            break
        except KeyboardInterrupt:
            continue  # Dagster was interrupted by the same key and ends its steps; wait for it
    if not built:
        return ERROR  # Dagster's last lines say why
    print(render_plan(make_plan(open_chain(Settings.from_environment()))), flush=True)
    return FRESH
