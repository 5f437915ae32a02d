"""A job that waits for a place to run, on an engine that has none and goes on to list what it was told to stop."""

import os
import signal
import time
from pathlib import Path

import pytest

from ernie_pipeline.launch.detached.engine import Status
from ernie_pipeline.launch.detached.launcher import DetachedLauncher
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline_tests.launch.children import ChildJob, work_in
from ernie_pipeline_tests.launch.following import step_with

GRACE_S = 60.0


class Full:
    """No job ever gets a place. `lists`: one that was stopped goes on waiting, as Ray's do."""

    title = "an engine that is full"

    def __init__(self, lists: bool = True):
        self.lists, self.jobs, self.stopped = lists, list[str](), list[str]()

    def submit(self, name: str, launch: Launch, job_file: Path, variables: dict[str, str]) -> None:
        self.jobs.append(name)

    def status(self, name: str) -> Status:
        there = name in self.jobs and (self.lists or name not in self.stopped)
        return Status("waiting", "it asks for 4 GPUs; there are 2") if there else Status("unknown")

    def stop(self, name: str) -> None:
        self.stopped.append(name)


@pytest.mark.parametrize("lists", [True, False])
def test_a_job_that_never_began_is_ended_at_once_and_nothing_of_it_counts(tmp_path: Path, lists: bool) -> None:
    engine, shares = Full(lists), list[float]()

    def tell(share: float) -> None:
        shares.append(share)
        if len(shares) % 8 == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    job, state = ChildJob(out=tmp_path / "out"), tmp_path / "unfinished"
    launch = Launch(work_in("none"), job, 1, key="k", state=state, stop_grace_s=GRACE_S, at_work=tell)
    for number in (1, 2):  # the second step finds the first one's job, which is to end, and begins another
        start = time.monotonic()
        result, log = step_with(DetachedLauncher(engine), launch, lambda values: None)
        assert time.monotonic() - start < 20, "not all of its grace"
        [event] = result.get_step_failure_events()
        assert event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
        assert any(
            line.endswith("waits for a worker of an engine that is full (it asks for 4 GPUs; there are 2)")
            for line in log
        )
        assert len(engine.jobs) == number
        assert set(engine.stopped) == set(engine.jobs)
    assert set(shares) == {0.0}
