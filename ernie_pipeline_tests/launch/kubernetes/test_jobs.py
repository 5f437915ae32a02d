"""The launcher `kubernetes` on a stand-in of the API that really runs the pods: what its users say must not happen.

The issues are dagster's: a deleted pod that hangs the run (22453), the last log lines lost (20432), a pod that is
pending for ever (14833), one of over four hours told as failed (21331).
"""

import os
import signal
import threading
import time
from typing import Any

import pytest

from ernie_pipeline_tests.launch.children import wait_until
from ernie_pipeline_tests.launch.following import failure
from ernie_pipeline_tests.launch.kubernetes.server import Api
from ernie_pipeline_tests.launch.kubernetes.steps import Steps

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


@pytest.mark.long
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


CRASHING = """
import os, sys
def work(job, report):
    report("at work", {"step": 0})
    for number in range(3000):
        print(f"line {number} \u00fcn\u00ef \U0001f600", file=sys.stderr)
    sys.stderr.flush()
    os.write(2, b"not text: \\xff\\xfe\\n")
    1 / 0
"""


@pytest.mark.long
def test_all_lines_of_a_crash_are_shown_and_its_pod_is_left_to_be_looked_at(
    steps: Steps, api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    """20432: the last ones were not."""
    (steps.place / f"{steps.work}.py").write_text(CRASHING, encoding="utf-8")
    result, log = steps.run(steps.launch())
    assert failure(result).startswith(f"{steps.work} failed with exit status 1")
    said = capfd.readouterr().err
    assert [line for line in said.splitlines() if line.startswith("line ")] == [f"line {n} ünï 😀" for n in range(3000)]
    assert "not text: \ufffd\ufffd" in said
    assert "\nZeroDivisionError: division by zero\n" in said
    assert sum(line.startswith("submitted") for line in log) == 1
    assert len(api.cluster.pods) == 1


FAILING = """
import sys
from ernie_pipeline.utils.errors import PipelineError
def work(job, report):
    for number in range(300):
        report(f"step {number}", {"step": number})
    print("beside it", file=sys.stderr)
    raise PipelineError("row 7 is blue; paint it")
"""


@pytest.mark.long
@pytest.mark.parametrize("gone_at_once", [False, True])
def test_what_a_failing_job_said_arrives_though_its_pod_is_gone_at_once(
    gone_at_once: bool, steps: Steps, api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    (steps.place / f"{steps.work}.py").write_text(FAILING)
    api.cluster.removes_ended = gone_at_once
    heard: list[int] = []
    result, log = steps.run(steps.launch(), lambda values: heard.append(values["step"]))
    assert failure(result) == "row 7 is blue; paint it"
    assert heard == list(range(300))
    assert ("beside it" in capfd.readouterr().err) is not gone_at_once
    assert sum(line.startswith("submitted") for line in log) == 1


@pytest.mark.long
def test_a_full_disk_of_the_job_is_told_and_is_not_tried_again(steps: Steps, api: Api) -> None:
    (steps.place / f"{steps.work}.py").write_text(
        "def work(job, report):\n    open('/dev/full', 'w').write('x' * 9999)\n"
    )
    result, log = steps.run(steps.launch())
    assert "is full; make room" in failure(result)
    assert sum(line.startswith("submitted") for line in log) == 1


@pytest.mark.long
def test_a_pod_that_is_pending_for_ever_ends_its_step(steps: Steps, api: Api) -> None:
    """14833."""
    api.cluster.unschedulable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    result, log = steps.run(steps.launch(), engine=steps.engine(pending_s=2))
    assert "did not start on Kubernetes within gpu.kubernetes.pending_s = 2 s (Unschedulable: 0/3" in failure(result)
    assert any("waits for a worker of Kubernetes (Unschedulable: 0/3 nodes" in line for line in log)
    assert not api.cluster.pods
    assert len(api.cluster.all) == 1


@pytest.mark.long
def test_a_pod_that_is_told_as_failed_while_it_beats_goes_on(steps: Steps, api: Api) -> None:
    """21331: over four hours, a stream or watch that expired was a failed job."""

    def tell() -> None:
        ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
        told = {"phase": "Failed", "containerStatuses": [{"name": "job", "state": ended}]}
        api.cluster.pods[name_of_pod(api)].told = told
        threading.Timer(10, (steps.place / "go").touch).start()

    result, log = steps.run(steps.launch(), at_step(5, tell))
    assert result.success, log
    assert (steps.steps, len(api.cluster.all)) == (TWENTY, 1)


@pytest.mark.long
def test_an_api_that_fails_for_hours_does_not_matter_to_a_job_that_beats(steps: Steps, api: Api) -> None:
    """The four hours by a short clock: ten times as long as an API may be silent whose job is."""
    faults = ["reset", 401, 410, 429, 500, 503, "html 200", "html 404", "html 403"]

    def fail() -> None:
        def fault(method: str, path: str) -> int | str:
            faults.append(faults.pop(0))
            return faults[-1]

        def come_back() -> None:
            api.down()
            time.sleep(4)
            api.up()
            api.fault = lambda method, path: ""
            (steps.place / "go").touch()

        api.fault = fault
        threading.Timer(12, come_back).start()

    result, log = steps.run(steps.launch(), at_step(5, fail), away_s=1.6)
    assert result.success, log
    assert (steps.steps, len(api.cluster.all)) == (TWENTY, 1)
    wait_until(lambda: not api.cluster.pods)


@pytest.mark.long
def test_a_node_that_is_lost_is_noticed_by_the_heartbeat(steps: Steps, api: Api) -> None:
    def lose() -> None:
        api.cluster.lose_node(name_of_pod(api))
        (steps.place / "go").touch()

    result, log = steps.run(steps.launch(), at_step(5, lose), quiet_s=4)
    assert result.success, log
    assert any("was lost (nothing was heard of it for 4 s)" in line for line in log)
    assert (steps.steps, len(api.cluster.all)) == (TWENTY, 2)


@pytest.mark.long
def test_memory_that_is_always_too_little_ends_the_step_with_what_to_do(steps: Steps, api: Api) -> None:
    result, _ = steps.run(
        steps.launch(), at_step(5, lambda: api.cluster.run_out_of_memory(name_of_pod(api))), retries=0
    )
    words = "was lost once on Kubernetes (OOMKilled: it took more memory than it may; raise gpu.kubernetes.memory_gib)"
    assert words in failure(result)


@pytest.mark.long
def test_a_killed_step_leaves_its_pod_and_the_next_one_attaches(steps: Steps, api: Api) -> None:
    steps.killed_step(lambda: len(steps.steps) == 6)
    assert api.cluster.pods[name_of_pod(api)].running
    asked = len(api.requests)

    def go_on_once_it_follows() -> None:
        wait_until(lambda: len(api.requests) > asked + 1)
        (steps.place / "go").touch()

    threading.Thread(target=go_on_once_it_follows).start()
    result, log = steps.run(steps.launch())
    assert result.success, log
    assert any("is under way as" in line and "attached" in line for line in log)
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in TWENTY]
    assert (steps.steps, len(api.cluster.all)) == (TWENTY, 1)
    wait_until(lambda: not api.cluster.pods)


@pytest.mark.long
def test_what_was_done_while_no_step_was_there_is_taken_over_and_its_pod_removed(steps: Steps, api: Api) -> None:
    steps.killed_step(lambda: len(steps.steps) == 6)
    (steps.place / "go").touch()
    wait_until((steps.job_folder / "out" / "sealed.json").exists)
    assert len(api.cluster.pods) == 1
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, log
    assert (launch.job.out / "made").exists()  # type: ignore[attr-defined]
    assert (steps.steps, len(api.cluster.all)) == (TWENTY, 1)
    wait_until(lambda: not api.cluster.pods)


@pytest.mark.long
def test_an_interrupt_stops_the_pod_which_saves_and_the_next_step_goes_on(steps: Steps, api: Api) -> None:
    result, log = steps.run(steps.launch(), at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    [event] = result.get_step_failure_events()
    assert event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
    assert "stopped by SIGTERM after step 5" in log
    assert (steps.place / "saved").exists()
    assert not any(pod.running for pod in api.cluster.all)
    (steps.place / "go").touch()
    result, log = steps.run(steps.launch())
    assert result.success, log
    assert "going on after step 6" in log
    assert steps.steps == TWENTY
    wait_until(lambda: not api.cluster.pods)


DEAF = """
import signal, time
def work(job, report):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report("at work", {"step": 5})
    time.sleep(300)
"""


@pytest.mark.long
def test_a_job_that_does_not_end_when_it_is_asked_to_is_ended_after_its_grace(steps: Steps, api: Api) -> None:
    (steps.place / f"{steps.work}.py").write_text(DEAF)
    start = time.monotonic()
    launch = steps.launch(stop_grace_s=3)
    result, _ = steps.run(launch, at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert not result.success
    assert time.monotonic() - start < 30
    wait_until(lambda: not api.cluster.pods)


@pytest.mark.long
def test_a_right_that_is_missing_is_the_step_s_failure(steps: Steps, api: Api) -> None:
    api.forbidden = {("create", "pods")}
    result, _ = steps.run(steps.launch())
    assert "does not let this account create pods" in failure(result)
