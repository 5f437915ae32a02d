"""The local launcher: a child process on this machine, or several that train together, followed through a pipe."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import dagster as dg

from ernie_pipeline.launch.child import how_it_failed, left_error
from ernie_pipeline.launch.detached.messages import MessageFile
from ernie_pipeline.launch.ending import end
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.environment import variables_of
from ernie_pipeline.launch.launcher import Launch, OnProgress, ignore_progress
from ernie_pipeline.launch.listener import Listener, last_words_when_interrupted
from ernie_pipeline.launch.parent import this_process
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.utils.child_process import how_it_ended
from ernie_pipeline.utils.errors import PipelineError

POLL_S = 0.25
FAILED_GRACE_S = 10.0
"""For one that takes too much memory, or whose companion has failed: there is nothing to save."""
AGENT_S = 5.0
"""What torchrun gets on top, to end after its processes."""
AGAIN = "run again: it goes on from its last checkpoint, if it wrote one"


class LocalLauncher:
    """Children of the step: whatever ends the step ends them, with all that they started."""

    def run(self, context: dg.AssetExecutionContext, launch: Launch, on_progress: OnProgress = ignore_progress) -> None:
        """See `Launcher.run`. Several processes run under torchrun."""
        several = launch.processes > 1
        limits = _Limits(launch, launch.stop_grace_s + (AGENT_S if several else 0))
        variables = {**variables_of(launch), **surroundings(launch.processes, launch.stop_grace_s)}
        with tempfile.TemporaryDirectory(prefix="ernie-job-") as folder:
            job_file = write_job(Path(folder), launch.work, launch.job, this_process())
            arguments, listener = command(job_file, launch.processes), Listener(Path(folder), on_progress)
            try:
                status = _run_child(context, arguments, {**os.environ, **variables}, listener, limits, several)
            except Exception as error:  # of Dagster, whose storage may be away
                if said := listener.failure or left_error(Path(folder)):
                    raise PipelineError(said) from error
                raise
            failure = listener.failure or left_error(Path(folder)) or how_it_failed(status, _out(launch))
        if limits.passed:
            raise PipelineError(limits.passed + (f" ({failure})" if failure else ""))
        if failure or status:
            raise PipelineError(failure or _how_it_died(launch.name, status))


def _run_child(
    context: dg.AssetExecutionContext,
    arguments: list[str],
    environment: dict[str, str],
    listener: Listener,
    limits: "_Limits",
    one_fails_all: bool,
) -> int:
    """Start a child and follow it to its end; its exit status."""
    injector, reader = dg.PipesTempFileContextInjector(), MessageFile(listener.folder / "messages.jsonl")
    with (
        last_words_when_interrupted(context, listener),
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


class _Limits:
    """What the child may take, how long it has to end once it is asked to, and in `passed` of what it took more."""

    def __init__(self, launch: Launch, grace_s: float):
        self.work, self.grace_s = launch.name, grace_s
        self.time_limit_s, self.memory_gib, self.stop_if = launch.time_limit_s, launch.memory_gib, launch.stop_if
        self.start, self.passed = time.monotonic(), ""

    def check(self, pid: int) -> bool:
        """Whether one is passed now."""
        if self.time_limit_s and time.monotonic() - self.start > self.time_limit_s:
            past = f"{self.work} ran past gpu.time_limit_s = {self.time_limit_s:g} and was ended"
            self.passed = f"{past}; raise the limit, or {AGAIN}"
        elif self.memory_gib and (taken := _resident_gib(pid)) > self.memory_gib:
            past = f"{self.work} took {taken:.1f} GiB where gpu.memory_gib = {self.memory_gib:g} and was ended"
            self.passed = f"{past}; raise the limit"
            self.grace_s = min(self.grace_s, FAILED_GRACE_S)
        elif sentence := self.stop_if():
            self.passed = sentence
        return bool(self.passed)


def _follow(child: "subprocess.Popen[bytes]", listener: Listener, limits: _Limits, one_fails_all: bool) -> None:
    """Return when the child has ended, passed a limit or, with `one_fails_all`, when one process of it has failed."""
    while child.poll() is None and not limits.check(child.pid):
        time.sleep(POLL_S)
        listener.listen()
        if one_fails_all and (listener.failure or left_error(listener.folder)):
            limits.grace_s = min(limits.grace_s, FAILED_GRACE_S)
            return


def _out(launch: Launch) -> object:
    return getattr(launch.job, "out", None)


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
