"""Steps that follow jobs which outlive them, on whatever engine."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ernie_pipeline.launch.launcher import Launch, Launcher, OnProgress
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.report import pipeline_errors_as_failures
from ernie_pipeline.training.job import TrainingJob
from ernie_pipeline_tests.launch.children import wait_until


def step_with(
    launcher: Launcher, launch: Launch, on_progress: OnProgress
) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """A step in this process; what its log says."""

    @dg.asset
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with pipeline_errors_as_failures():
            launcher.run(context, launch, on_progress)
        return dg.MaterializeResult()

    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize([asset], instance=instance, raise_on_error=False)
    return result, [record.user_message for record in instance.all_logs(result.run_id)]


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence with which the step failed."""
    [event] = result.get_step_failure_events()
    assert event.step_failure_data.user_failure_data is not None, event.step_failure_data.error
    return str(event.step_failure_data.user_failure_data.description)


def killed_step(code: str, arguments: list[str], log: Path, when: Callable[[], bool], **started: Any) -> None:
    """A step in a process of its own, which runs `code`, killed outright then. `started`: how, as `Popen` takes it."""
    command = [sys.executable, "-c", code, *arguments]
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said, **started) as step:
        try:
            wait_until(lambda: when() or step.poll() is not None, 120)
            assert step.poll() is None, log.read_text()
        finally:
            step.kill()


def step_with_gpu(
    gpu: GpuResource,
    work: str,
    job: Any,
    unfinished: Path,
    hear: Callable[[dict[str, Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """A step that does a job through the resource; what was logged. `hear` is told of the progress that is observed."""

    @dg.asset
    def asset(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
        said = context.log_event

        def log_event(event: Any) -> None:
            said(event)
            hear({key: value.value for key, value in event.metadata.items()})

        monkeypatch.setattr(context, "log_event", log_event)
        gpu.run(context, work, job, unfinished=unfinished, processes=gpu.processes if work == "training" else 1)
        return dg.MaterializeResult()

    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize([asset], resources={"gpu": gpu}, instance=instance)
    return [record.user_message for record in instance.all_logs(result.run_id)]


def adapter(job: TrainingJob) -> bytes:
    """The file that a training came to."""
    return (job.out / "adapter" / "adapter_model.safetensors").read_bytes()
