"""The child's side: a job read from a file, progress and errors sent through the pipe to the step that waits.

Without a step, started by hand, it prints instead.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from ernie_pipeline.errors import PipelineError, disk_full_sentence, is_disk_full
from ernie_pipeline.reporter import Reporter

PARENT_POLL_S = 1.0


def run_job(work: Callable[[dict[str, Any], Reporter], None]) -> None:
    """Run `work` on the job file that the command line names. A `PipelineError` ends the process with its sentence."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
        work(job, lambda line, _: print(line, flush=True))
        return
    threading.Thread(target=_end_with_parent, args=(job["parent"],), daemon=True).start()
    with open_dagster_pipes() as pipes:
        try:
            work(job, lambda line, values: _send(pipes, line, values))
        except Exception as error:
            if not isinstance(error, PipelineError) and not is_disk_full(error):
                raise
            told = str(error) if isinstance(error, PipelineError) else disk_full_sentence(job["out"])
            pipes.report_custom_message({"error": told})
            sys.exit(1)


def _end_with_parent(parent: int) -> None:
    """A step that was killed outright could not end its child: nobody would read what it goes on to make.

    `parent` is the step's process, told by itself: it may be gone before this process, still importing, could ask.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def _send(pipes: PipesContext, line: str, values: dict[str, Any]) -> None:
    pipes.log.info(line)
    if values:
        pipes.report_custom_message({"progress": values})
