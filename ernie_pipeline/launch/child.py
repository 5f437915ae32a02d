"""`python -m ernie_pipeline.launch.child JOB.json`: the child's side of every process that a step starts.

It does the work that the job file names; progress and errors go through the pipe to the step that waits. Without a
step, started by hand, it prints instead. Of several processes that train together only the first one reports; an error
of another is left in a file beside the job. A job that outlives its step fills a folder of its own, see `detached/`.
Where a full disk leaves no room for the sentence itself, the exit status tells.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from ernie_pipeline.launch.detached.life import LOST, alive, end_cut_line, make_sealed
from ernie_pipeline.launch.detached.place import Place
from ernie_pipeline.launch.envelope import Envelope, find_work
from ernie_pipeline.launch.pacing import paced
from ernie_pipeline.launch.parent import end_with
from ernie_pipeline.recipe.home_format import check_format
from ernie_pipeline.store.artifacts import UNFINISHED
from ernie_pipeline.utils.errors import PipelineError, Stopped, disk_full_sentence, is_disk_full
from ernie_pipeline.utils.reporter import Reporter
from ernie_pipeline.utils.shares import as_shown

DISK_FULL = 73
"""The exit status of a child whose disk is full, whose sentence did not get through: sysexits(3), EX_CANTCREAT."""


def main(job_file: Path) -> None:
    """Do the work of the job file. A `PipelineError` ends the process with status 1, its sentence handed on."""
    envelope, rank = Envelope.model_validate_json(job_file.read_bytes()), int(os.environ.get("RANK", "0"))
    if envelope.parent:
        threading.Thread(target=end_with, args=(envelope.parent,), daemon=True).start()
    with alive(envelope.attempt, beats=rank == 0) if envelope.attempt else nullcontext():
        folder = envelope.attempt.folder if envelope.attempt else job_file.parent
        try:
            _report_to_whom_it_may(envelope, rank, folder)
        except OSError as error:
            if not is_disk_full(error):
                raise
            _print_and_exit(disk_full_sentence(str(envelope.job.get("out"))), DISK_FULL)  # and so is the message file's


def _report_to_whom_it_may(envelope: Envelope, rank: int, folder: Path) -> None:
    """Do the work. `folder`: where a process that has no pipe leaves its error."""
    if rank:
        _run(envelope, _report_nothing, lambda sentence: leave_error(folder, rank, sentence))
    elif PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
        if envelope.attempt:
            end_cut_line(Place(envelope.attempt.folder).messages)
        with open_dagster_pipes() as pipes:
            _run(
                envelope,
                paced(lambda line, values: _send(pipes, line, values)),
                lambda sentence: pipes.report_custom_message({"error": sentence}),
            )
    else:
        _run(
            envelope, paced(lambda line, _: print(line, flush=True)), lambda sentence: print(sentence, file=sys.stderr)
        )


def leave_error(folder: Path, rank: int, sentence: str) -> None:
    """Leave the sentence of a process that has no pipe in a file: whole, or not there."""
    unfinished = folder / f".error-{rank}"
    unfinished.write_text(sentence, encoding="utf-8")
    unfinished.rename(folder / f"error-{rank}")


def left_error(folder: Path) -> str:
    """The sentence of the first process that left one, or ""."""
    found = sorted(folder.glob("error-*"))
    return found[0].read_text(encoding="utf-8") if found else ""


def how_it_failed(status: int | None, out: object) -> str:
    """The sentence that the exit status stands for, of a child that fills the folder `out`; "" for any other."""
    return disk_full_sentence(str(out)) if status == DISK_FULL else ""


def _run(envelope: Envelope, report: Reporter, report_error: Callable[[str], None]) -> None:
    try:
        _do(envelope, report)
    except Exception as error:
        if not isinstance(error, PipelineError) and not is_disk_full(error):
            raise
        if isinstance(error, Stopped) and envelope.attempt and not Place(envelope.attempt.folder).stop_asked:
            # by no step: its machine is taken, and it goes on elsewhere
            report(str(error), {})
            sys.exit(LOST)
        sentence = str(error) if isinstance(error, PipelineError) else disk_full_sentence(str(envelope.job.get("out")))
        try:
            report_error(sentence)
        except OSError as full:
            if not is_disk_full(full):
                raise
            _print_and_exit(sentence, DISK_FULL)
        sys.exit(1)


def _print_and_exit(sentence: str, status: int) -> NoReturn:
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)
    sys.exit(status)


def _do(envelope: Envelope, report: Reporter) -> None:
    """The work, into the job's folder; of a job that outlives its step into a sealed one, by the first process."""
    work = find_work(envelope.work)
    if envelope.attempt:
        _check_home(envelope.attempt.folder)
    if envelope.attempt and not int(os.environ.get("RANK", "0")):
        make_sealed(envelope.attempt, work.name, lambda out: work.do({**envelope.job, "out": str(out)}, report))
    else:
        work.do(envelope.job, report)


def _check_home(folder: Path) -> None:
    """Raise `PipelineError` where a newer version of this package has written in the store that a job's folder is in:
    a job may begin long after its step looked, on a machine with another version."""
    for above in folder.parents:
        if above.name == UNFINISHED:
            check_format(above.parent)


def _report_nothing(line: str, values: dict[str, Any]) -> None:
    pass


def _send(pipes: PipesContext, line: str, values: dict[str, Any]) -> None:
    pipes.log.info(as_shown(line))
    if values:
        pipes.report_custom_message({"progress": values})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
