"""Jobs in real child processes: what they spend outlives them, and those of one run share its budget."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_pipeline.store.spending import REFRESH, read_spent, unfinished_place
from ernie_pipeline_tests.launch.children import left_of, python_path, wait_until

CHILD = f"metered_{os.getpid()}"
WORK = """
import time
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.utils.errors import PipelineError
def work(job, report):
    with StopSignals() as stop:
        start = time.monotonic()
        while not stop.requested and time.monotonic() - start < job.number:
            time.sleep(0.05)
    if stop.requested:
        raise PipelineError(f"stopped by {stop.requested} after step 1")
"""
STEP = """
import sys
from pathlib import Path
import dagster as dg
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.report import pipeline_errors_as_failures
from ernie_pipeline_tests.launch.children import ChildJob, work_in

stage, child, place, seconds = sys.argv[1:]

@dg.asset(name=stage)
def parent(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    with pipeline_errors_as_failures():
        job = ChildJob(out=place, number=int(seconds))
        gpu.run(context, work_in(child), job, unfinished=Path(place, "unfinished", stage, "f00d"))
    return dg.MaterializeResult()

result = dg.materialize([parent], resources={"gpu": GpuResource()}, raise_on_error=False)
for event in result.get_step_failure_events():
    print(event.step_failure_data.user_failure_data.description)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / f"{CHILD}.py").write_text(WORK)
    return tmp_path


def start(place: Path, stage: str, seconds: int, **environment: str) -> "subprocess.Popen[str]":
    """A step in a process of its own, whose child works for so many seconds."""
    known = {"ERNIE_PIPELINE_HOME": str(place / "home"), "PYTHONPATH": python_path(place), REFRESH: "refresh-1"}
    return subprocess.Popen(
        [sys.executable, "-c", STEP, stage, CHILD, str(place), str(seconds)],
        env={**os.environ, **known, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def spent(place: Path, stage: str) -> list[float]:
    """The seconds of each job of the stage."""
    return [job.seconds for job in read_spent(unfinished_place(place / "unfinished" / stage / "f00d"))]


def test_two_at_once_share_the_budget_of_their_run_and_are_asked_to_stop(place: Path) -> None:
    steps = {name: start(place, name, 120, ERNIE_PIPELINE_BUDGET="16s") for name in ("one", "two")}
    for name, step in steps.items():
        said = step.communicate(timeout=100)[0]
        assert said.startswith(f"{name} passed ERNIE_PIPELINE_BUDGET = 16s (")
        assert " s spent by this run) and was ended; raise ERNIE_PIPELINE_BUDGET, or run again: it goes on" in said
        assert said.endswith(" (stopped by SIGTERM after step 1)\n")
    alone = [spent(place, name)[0] for name in steps]
    assert min(alone) < 14, "neither had it all to itself"
    assert 16 <= sum(alone) < 32
    together = read_spent(place / "home" / "store" / ".runs" / "refresh-1")
    assert sorted(job.seconds for job in together) == sorted(alone)
    assert left_of(CHILD) == []

    late = start(place, "three", 1, ERNIE_PIPELINE_BUDGET="16s")
    assert late.communicate(timeout=100)[0].startswith(
        "three was not begun: its run passed ERNIE_PIPELINE_BUDGET = 16s"
    )
    assert spent(place, "three") == []
    other_run = start(place, "three", 1, ERNIE_PIPELINE_BUDGET="100s", **{REFRESH: "refresh-2"})
    assert other_run.communicate(timeout=100)[0] == ""
    assert len(spent(place, "three")) == 1


def test_what_was_spent_before_a_kill_is_kept(place: Path) -> None:
    step = start(place, "one", 120)
    wait_until(lambda: bool(spent(place, "one")) and spent(place, "one")[0] >= 1)
    step.kill()
    step.communicate()
    before = spent(place, "one")
    assert before[0] >= 1
    wait_until(lambda: left_of(CHILD) == [])
    time.sleep(1.1)
    assert spent(place, "one") == before, "nobody counts on"
    again = start(place, "one", 1)
    assert again.communicate(timeout=100)[0] == ""
    assert len(spent(place, "one")) == 2
