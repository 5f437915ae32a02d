"""The local launcher: a child process on this machine, followed through Dagster Pipes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.errors import PipelineError

POLL_S = 0.25
GRACE_S = 10.0

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


def run_module(
    context: dg.AssetExecutionContext,
    module: str,
    job: dict[str, Any],
    *,
    threads: int,
    memory_gib: float | None = None,
    time_limit_s: float | None = None,
    on_progress: Callable[[dict[str, Any]], None] = lambda values: None,
) -> None:
    """Run `python -m module` on `job` until it ends; its log lines and progress reach Dagster while it runs.

    Raises `PipelineError` with the child's own sentence, or one that says how it died. Whatever ends this call ends
    the child and its children too.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ernie-job-") as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps({**job, "parent": os.getpid()}), encoding="utf-8")
        with dg.open_pipes_session(
            context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
        ) as session:
            listener = _Listener(session, on_progress)
            environment = {**os.environ, **QUIET, **session.get_bootstrap_env_vars(), "OMP_NUM_THREADS": str(threads)}
            child = subprocess.Popen([sys.executable, "-m", module, str(job_file)], env=environment)
            try:
                while child.poll() is None:
                    time.sleep(POLL_S)
                    listener.listen()
                    _check_limits(child.pid, module, started, memory_gib, time_limit_s)
            finally:
                _end(child)
        listener.listen()  # the closed session has read everything that the child sent
    if child.returncode:
        raise PipelineError(listener.failure or _how_it_died(module, child.returncode))


class _Listener:
    """Hands on what the child reports beyond its log lines."""

    def __init__(self, session: Any, on_progress: Callable[[dict[str, Any]], None]):
        self.session, self.on_progress, self.heard, self.failure = session, on_progress, 0, ""

    def listen(self) -> None:
        messages = self.session.get_custom_messages()[self.heard :]
        self.heard += len(messages)
        for message in messages:
            if "error" in message:
                self.failure = message["error"]
            else:
                self.on_progress(message["progress"])


def _check_limits(pid: int, module: str, started: float, memory_gib: float | None, time_limit_s: float | None) -> None:
    if time_limit_s and time.monotonic() - started > time_limit_s:
        raise PipelineError(f"{module} ran past gpu.time_limit_s = {time_limit_s:g} and was ended; raise the limit")
    if memory_gib and (taken := _resident_gib(pid)) > memory_gib:
        raise PipelineError(
            f"{module} took {taken:.1f} GiB where gpu.memory_gib = {memory_gib:g} and was ended; raise the limit"
        )


def _how_it_died(module: str, code: int) -> str:
    if code < 0:
        signal = {9: " (killed, perhaps for want of memory)", 15: " (terminated)", 2: " (interrupted)"}.get(-code, "")
        return f"{module} was ended by signal {-code}{signal}; nothing was stored, run again"
    return f"{module} failed with exit status {code}; its traceback is in this step's stderr; nothing was stored"


def _resident_gib(pid: int) -> float:
    import psutil  # not needed to open the code location

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return float(sum(p.memory_info().rss for p in family)) / 2**30
    except psutil.Error:
        return 0.0


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End what is left of the child's process group: first asked to, then made to."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
