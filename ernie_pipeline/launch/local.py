"""The local launcher: a child process on this machine, or several that train together, followed through a pipe."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
from pydantic import BaseModel

from ernie_pipeline.launch.child import left_error
from ernie_pipeline.launch.ending import end
from ernie_pipeline.launch.envelope import find_work, write_job
from ernie_pipeline.launch.parent import this_process
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.launch.work import WorkKind
from ernie_pipeline.utils.child_process import how_it_ended
from ernie_pipeline.utils.errors import PipelineError

POLL_S = 0.25
STOP_GRACE_S = 120.0
FAILED_GRACE_S = 10.0
"""For one that takes too much memory, or whose companion has failed: there is nothing to save."""
AGENT_S = 5.0
"""What torchrun gets on top, to end after its processes."""
AGAIN = "run again: it goes on from its last checkpoint, if it wrote one"

QUIET = {
    # GOMP's threads spin while they wait: beside another process on the same cores that costs ten times the time
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "WANDB_DISABLED": "true",
}


def run_work(
    context: dg.AssetExecutionContext,
    work: str | WorkKind,
    job: BaseModel,
    *,
    threads: int,
    memory_gib: float | None = None,
    time_limit_s: float | None = None,
    on_progress: Callable[[dict[str, Any]], None] = lambda values: None,
    processes: int = 1,
    stop_grace_s: float = STOP_GRACE_S,
    environment: Mapping[str, str] = MappingProxyType({}),
    stop_if: Callable[[], str] = lambda: "",
) -> None:
    """Do `work`, by its name in `WORK`, in a child until it ends; its log lines and progress reach Dagster meanwhile.

    Several `processes` run under torchrun, with `threads` each; all get `environment` too. Raises `PipelineError` with
    the child's own sentence, or one that says how it died. Whatever ends this call ends the child and all that it
    started: an interrupt and the time limit ask it to stop, and it has `stop_grace_s` seconds to save its work. So does
    `stop_if`, which is asked several times a second, as soon as it gives a sentence that says why.
    """
    name = find_work(work).name
    limits = _Limits(name, time_limit_s, memory_gib, stop_grace_s + (AGENT_S if processes > 1 else 0), stop_if)
    variables = {**QUIET, **environment, **surroundings(processes, stop_grace_s), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="ernie-job-") as folder:
        job_file = write_job(Path(folder), work, job, this_process())
        arguments, listener = command(job_file, processes), _Listener(Path(folder), on_progress)
        status = _run_child(context, arguments, {**os.environ, **variables}, listener, limits, processes > 1)
        failure = listener.failure or left_error(Path(folder))
    if limits.passed:
        raise PipelineError(limits.passed + (f" ({failure})" if failure else ""))
    if failure or status:
        raise PipelineError(failure or _how_it_died(name, status))


def _run_child(
    context: dg.AssetExecutionContext,
    arguments: list[str],
    environment: dict[str, str],
    listener: "_Listener",
    limits: "_Limits",
    one_fails_all: bool,
) -> int:
    """Start a child and follow it to its end; its exit status."""
    injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
    with (
        _last_words_when_interrupted(context, listener),
        dg.open_pipes_session(context, injector, reader) as session,
    ):
        listener.session = session
        environment = {**environment, **session.get_bootstrap_env_vars()}
        # a session of its own: Ctrl-C in a terminal interrupts the step, and the step ends the child
        child = subprocess.Popen(arguments, env=environment, start_new_session=True)
        try:
            _follow(child, listener, limits, one_fails_all)
        finally:
            end(child, limits.grace_s)
    listener.listen()  # the closed session has read everything that the child sent
    return child.returncode


class _Listener:
    """Hands on what the child reports beyond its log lines."""

    def __init__(self, folder: Path, on_progress: Callable[[dict[str, Any]], None]):
        self.folder, self.on_progress, self.heard, self.failure = folder, on_progress, 0, ""
        self.session: dg.PipesSession | None = None

    def listen(self) -> None:
        messages = self.session.get_custom_messages()[self.heard :] if self.session else []
        self.heard += len(messages)
        for message in messages:
            if "error" in message:
                self.failure = message["error"]
            else:
                self.on_progress(message["progress"])


@contextmanager
def _last_words_when_interrupted(context: dg.AssetExecutionContext, listener: _Listener) -> Iterator[None]:
    """What the child said to its end, such as after which step it has saved, comes before the interrupt's own error."""
    try:
        yield
    except BaseException:
        listener.listen()
        if listener.failure:
            context.log.info(listener.failure)
        raise


class _Limits:
    """What the child may take, how long it has to end once it is asked to, and in `passed` of what it took more."""

    def __init__(
        self,
        work: str,
        time_limit_s: float | None,
        memory_gib: float | None,
        grace_s: float,
        stop_if: Callable[[], str],
    ):
        self.work, self.time_limit_s, self.memory_gib, self.grace_s = work, time_limit_s, memory_gib, grace_s
        self.stop_if = stop_if
        self.start, self.passed = time.monotonic(), ""

    def check(self, pid: int) -> bool:
        """Whether one is passed now."""
        if self.time_limit_s and time.monotonic() - self.start > self.time_limit_s:
            past = f"{self.work} ran past gpu.time_limit_s = {self.time_limit_s:g} and was ended"
            self.passed = f"{past}; raise the limit, or {AGAIN}"
        elif sentence := self.stop_if():
            self.passed = sentence
        elif self.memory_gib and (taken := _resident_gib(pid)) > self.memory_gib:
            past = f"{self.work} took {taken:.1f} GiB where gpu.memory_gib = {self.memory_gib:g} and was ended"
            self.passed = f"{past}; raise the limit"
            self.grace_s = min(self.grace_s, FAILED_GRACE_S)
        return bool(self.passed)


def _follow(child: "subprocess.Popen[bytes]", listener: _Listener, limits: _Limits, one_fails_all: bool) -> None:
    """Return when the child has ended, passed a limit or, with `one_fails_all`, when one process of it has failed."""
    while child.poll() is None and not limits.check(child.pid):
        time.sleep(POLL_S)
        listener.listen()
        if one_fails_all and (listener.failure or left_error(listener.folder)):
            limits.grace_s = min(limits.grace_s, FAILED_GRACE_S)
            return


def _how_it_died(work: str, status: int) -> str:
    then = AGAIN if status < 0 else "its traceback is in this step's stderr"
    return f"{work} {how_it_ended(status)}; nothing was stored; {then}"


def _resident_gib(pid: int) -> float:
    import psutil  # not needed to open the code location

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return float(sum(p.memory_info().rss for p in family)) / 2**30
    except psutil.Error:
        return 0.0
