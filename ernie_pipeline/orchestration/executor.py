"""How a run's steps are started: forked from one process that has imported the code location already.

Dagster's default spawns a fresh interpreter for each step, which imports everything again; that is most of what a run
that reuses everything takes.
"""

from typing import Any

import dagster as dg

PRELOADED = ("ernie_pipeline.definitions", "matplotlib.figure")
"""Imported once a run, by the process that steps are forked from. Not polars, whose threads do not outlive a fork."""


def _forked(config: dict[str, Any]) -> dict[str, Any]:
    """The executor's configuration, in which steps that run in processes are forked where it says nothing else."""
    if "multiprocess" not in config:
        return config
    start = {"start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}}
    return {"multiprocess": start | config["multiprocess"]}


executor = dg.multi_or_in_process_executor.configured(
    _forked, config_schema=dg.multi_or_in_process_executor.config_schema.as_field()
)
"""Dagster's own, with its settings: `in_process`, or `multiprocess` with `max_concurrent` and the rest."""
