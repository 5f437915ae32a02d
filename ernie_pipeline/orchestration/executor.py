"""How a run's steps are started: forked from one process that has imported the code location already.

Dagster's default spawns a fresh interpreter for each step, which imports everything again; that is most of what a run
that reuses everything takes.
"""

import logging
import os
from typing import Any

import dagster as dg

from ernie_pipeline.launch.parent import COMMAND_PROCESS, interrupt_with_command, tell_steps_who_runs_them
from ernie_pipeline.orchestration.up import of_another_home
from ernie_pipeline.recipe.settings import Settings

log = logging.getLogger(__name__)
"""What is told before the run has a log of its own; without a handler, Python prints it on stderr."""
EITHER = dg.multi_or_in_process_executor
JOBS = tuple(f"ernie_pipeline.{room}.job" for room in ("data", "solutions", "training", "evaluation"))
PRELOADED = ("ernie_pipeline.definitions", "matplotlib.figure", *JOBS)
"""Imported once a run, by the process that steps are forked from: what opening the code location does without too. Not
polars, whose threads do not outlive a fork."""


def _forked(config: dict[str, Any]) -> dict[str, Any]:
    """The executor's configuration, in which steps that run in processes are forked where it says nothing else."""
    if "multiprocess" not in config:
        return config
    start = {"start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}}
    return {"multiprocess": start | config["multiprocess"]}


@dg.executor(name=EITHER.name, config_schema=EITHER.config_schema.as_field(), requirements=EITHER.get_requirements)
def _either(init_context: dg.InitExecutorContext) -> dg.Executor:
    """Made in the run's own process, and nowhere else: its steps end when it does, and it with its command."""
    tell_steps_who_runs_them()
    if COMMAND_PROCESS in os.environ:
        interrupt_with_command()
    elif words := of_another_home(Settings.from_environment()):  # which a command of ours has told
        log.warning("warning: %s", words)
    make = EITHER.executor_creation_fn
    assert make, "Dagster's own executor can be made"
    return make(init_context)


executor = _either.configured(_forked, config_schema=EITHER.config_schema.as_field())
"""Dagster's own, with its settings: `in_process`, or `multiprocess` with `max_concurrent` and the rest."""
