"""The launcher `kubernetes` against a stand-in of the API that really runs the pods: what its users say must not happen.

The issues are dagster's: a deleted pod that hangs the run (22453), the last log lines lost (20432), a pod that is
pending for ever (14833), one of over four hours told as failed (21331).
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.launch.detached import followed
from ernie_pipeline_tests.launch.children import wait_until
from ernie_pipeline_tests.launch.kubernetes.server import Api
from ernie_pipeline_tests.launch.kubernetes.steps import Steps, failure

TWENTY = list(range(20))


def at_step(number: int, act: Any) -> Any:
    """To be called with progress: acts once, at that step."""
    acted: list[int] = []

    def hear(values: dict[str, Any]) -> None:
        if values["step"] == number and not acted:
            acted.append(number)
            act()

    return hear


def name_of_pod(api: Api) -> str:
    [name] = api.cluster.pods
    return name


def test_a_job_s_messages_arrive_while_it_runs_and_its_pod_is_removed(steps: Steps, api: Api) -> None:
    heard: list[int] = []

    def hear(values: dict[str, Any]) -> None:
        heard.append(values["step"])
        if values["step"] == 5:
            (steps.place / "go").touch()

    launch = steps.launch()
    result, log = steps.run(launch, hear)
    assert result.success, log
    assert heard == steps.steps == TWENTY
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in TWENTY]
    assert {file.name for file in launch.job.out.iterdir()} == {"made"}  # type: ignore[attr-defined]
    assert len(api.cluster.all) == 1
    wait_until(lambda: not api.cluster.pods)


@pytest.mark.parametrize("way", ["delete", "vanish", "evict", "preempt", "run_out_of_memory"])
def test_a_pod_that_is_taken_from_outside_is_submitted_again_and_goes_on(way: str, steps: Steps, api: Api) -> None:
    """22453: it hung there."""

    def take() -> None:
        getattr(api.cluster, way)(name_of_pod(api))
        (steps.place / "go").touch()

    launch = steps.launch()
    result, log = steps.run(launch, at_step(5, take))
    assert result.success, log
    assert any("was lost" in line and "submitting it again" in line for line in log), log
    assert "going on after step 6" in log
    assert steps.steps == TWENTY
    assert (launch.job.out / "made").read_text() == "6"  # type: ignore[attr-defined]
    assert len(api.cluster.all) == 2
    assert (steps.place / "saved").exists() == (way in ("delete", "preempt")), "what is asked to end saves"
    wait_until(lambda: not api.cluster.pods)
