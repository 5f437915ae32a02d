"""The child's side: a job read from a file, progress and errors sent through the pipe to the step that waits.

Without a step, started by hand, it prints instead. Of several processes under torchrun only the first one reports; an
error of another is left in a file beside the job.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from ernie_pipeline.launch.parent import end_with
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence, is_disk_full
from ernie_pipeline.utils.reporter import Reporter

Work = Callable[[dict[str, Any], Reporter], None]


def run_job(work: Work) -> None:
    """Run `work` on the job file that the command line names. A `PipelineError` ends the process with its sentence."""
    job_file = Path(sys.argv[1])
    job, rank = json.loads(job_file.read_text(encoding="utf-8")), int(os.environ.get("RANK", "0"))
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
        work(job, _say_nothing if rank else lambda line, _: print(line, flush=True))
        return
    threading.Thread(target=end_with, args=(job["step"],), daemon=True).start()
    if rank:
        _run(work, job, _say_nothing, lambda told: leave_error(job_file.parent, rank, told))
        return
    with open_dagster_pipes() as pipes:
        _run(
            work,
            job,
            lambda line, values: _send(pipes, line, values),
            lambda told: pipes.report_custom_message({"error": told}),
        )


def leave_error(folder: Path, rank: int, told: str) -> None:
    """Leave the sentence of a process that has no pipe in a file: whole, or not there."""
    unfinished = folder / f".error-{rank}"
    unfinished.write_text(told, encoding="utf-8")
    unfinished.rename(folder / f"error-{rank}")


def left_error(folder: Path) -> str:
    """The sentence of the first process that left one, or ""."""
    found = sorted(folder.glob("error-*"))
    return found[0].read_text(encoding="utf-8") if found else ""


def _run(work: Work, job: dict[str, Any], report: Reporter, tell: Callable[[str], None]) -> None:
    try:
        work(job, report)
    except Exception as error:
        if not isinstance(error, PipelineError) and not is_disk_full(error):
            raise
        tell(str(error) if isinstance(error, PipelineError) else disk_full_sentence(job["out"]))
        sys.exit(1)


def _say_nothing(line: str, values: dict[str, Any]) -> None:
    pass


def _send(pipes: PipesContext, line: str, values: dict[str, Any]) -> None:
    pipes.log.info(line)
    if values:
        pipes.report_custom_message({"progress": values})
