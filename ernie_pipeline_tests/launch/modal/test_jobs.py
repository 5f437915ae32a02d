"""What a job on Modal survives: each loss in the middle, and the same steps done, each once."""

import os
import random
import signal
import threading
import time
from typing import Any

import pytest

from ernie_pipeline.launch.detached import followed
from ernie_pipeline.launch.detached.life import SUPERSEDED
from ernie_pipeline.launch.modal import call
from ernie_pipeline.launch.modal.keys import HEARTBEAT
from ernie_pipeline_tests.launch.children import gone, wait_until
from ernie_pipeline_tests.launch.following import failure
from ernie_pipeline_tests.launch.modal.steps import COUNTING, WORK, Steps, made
from ernie_pipeline_tests.store.shared.server import Server

SLOWLY = COUNTING.replace('while step >= 5 and not bucket.get("go") and not stop.requested:', "for _ in range(4):")
"""Waits for nothing."""
JOB = f"jobs/stage-f00d/{WORK}"


def at_six(steps: Steps, do: Any) -> Any:
    """A listener that does something when the job waits after its sixth step, once."""
    done: list[int] = []

    def hear(values: dict[str, Any]) -> None:
        if values["step"] == 5 and not done:
            done.append(1)
            do()

    return hear


def submitted(log: list[str]) -> int:
    return sum(line.startswith("submitted") for line in log)


@pytest.mark.parametrize("restart", [True, False], ids=["Modal starts it again", "Modal gives it up"])
def test_a_killed_container_s_job_goes_on_from_what_was_sent(steps: Steps, restart: bool) -> None:
    def kill() -> None:
        wait_until(steps.saved)
        time.sleep(2)  # the sixth step is sent
        spawned = steps.modal.calls[0]
        spawned.restart_killed() if restart else spawned.lose()
        steps.go()

    launch = steps.launch()
    result, log = steps.run(launch, at_six(steps, kill))
    assert result.success, "\n".join(log)
    assert "going on after step 6" in log
    assert made(launch) == list(range(20))
    assert (submitted(log), len(steps.modal.calls)) == ((1, 1) if restart else (2, 2))
    assert any("was lost (InternalFailure: worker lost): submitting it again" in line for line in log) is not restart


def test_a_child_that_the_kernel_kills_for_its_memory_is_submitted_again(steps: Steps) -> None:
    killed: list[int] = []

    def kill(values: dict[str, Any]) -> None:
        if values["step"] == 5 and not killed:
            killed.append(values["pid"])
            os.kill(values["pid"], signal.SIGKILL)
            steps.go()

    launch = steps.launch()
    result, log = steps.run(launch, kill)
    assert result.success, "\n".join(log)
    assert submitted(log) == 2
    assert "going on after step 6" in log, "what it saved was sent before the function ended"
    assert made(launch) == list(range(20))


def test_a_killed_step_leaves_its_job_and_one_on_another_machine_attaches(steps: Steps) -> None:
    steps.killed_step(lambda: steps.said("step 5"))
    spawned = steps.modal.calls[0]
    assert not gone(spawned.pid)
    threading.Timer(2, steps.go).start()
    elsewhere = Steps(steps.home.with_name("another"), steps.address, steps.modal, steps.image)
    launch = elsewhere.launch()
    result, log = elsewhere.run(launch)
    assert result.success, "\n".join(log)
    assert any("is under way as" in line and "attached" in line for line in log)
    assert not submitted(log)
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in range(20)]
    assert made(launch) == list(range(20))


def test_what_was_done_while_no_step_was_there_is_taken_over_without_modal(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.killed_step(lambda: steps.said("step 5"))
    steps.go()
    wait_until(lambda: any(name.endswith("/sealed") for name in steps.bucket.list(JOB)))
    monkeypatch.setattr("modal.FunctionCall.from_id", None)
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert made(launch) == list(range(20))
    assert not submitted(log)


def test_an_interrupt_stops_the_job_which_saves_and_the_next_step_goes_on(steps: Steps) -> None:
    launch = steps.launch()
    result, log = steps.run(launch, at_six(steps, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    [event] = result.get_step_failure_events()
    assert event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
    assert "stopped by SIGTERM after step 5" in log
    wait_until(lambda: gone(steps.modal.calls[0].pid))
    steps.go()
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert "going on after step 6" in log
    assert made(launch) == list(range(20))


def test_a_call_that_still_waits_for_a_machine_is_cancelled_at_once(steps: Steps) -> None:
    (steps.modal.folder / "busy").touch()
    result, _ = steps.run(steps.launch(stop_if=lambda: "enough" if steps.modal.calls else ""))
    assert failure(result) == "enough"
    assert (steps.modal.calls[0].folder / "terminated").exists()


def test_the_time_limit_and_the_budget_let_the_job_save(steps: Steps) -> None:
    steps.killed_step(lambda: steps.said("step 5"))  # not to limit how long a process takes to start
    result, _ = steps.run(steps.launch(time_limit_s=2))
    assert failure(result).startswith(f"{WORK} ran past gpu.time_limit_s = 2 and was ended; raise the limit")
    assert failure(result).endswith("(stopped by SIGTERM after step 5)")
    wait_until(steps.saved)
    heard: list[int] = []
    launch = steps.launch(stop_if=lambda: "too dear" if heard else "")
    result, _ = steps.run(launch, lambda values: heard.append(values["step"]))
    assert (failure(result), heard) == ("too dear (stopped by SIGTERM after step 6)", [6])


def test_with_no_step_the_function_ends_itself_at_the_limit_and_the_next_step_goes_on(steps: Steps) -> None:
    """All starts of it count together. The first must have come to its sixth step by then."""
    steps.killed_step(lambda: steps.said("step 5"), "time_limit_s=20")
    spawned = steps.modal.calls[0]
    spawned.preempt()
    wait_until(lambda: gone(spawned.pid), 60)
    assert spawned.get(timeout=0)["exit_status"] in (-15, 1)
    [error] = [name for name in steps.bucket.list(JOB) if name.endswith("/error-0")]
    stored = steps.bucket.get(f"{JOB}/{error}")
    assert stored
    assert stored.body.startswith(b"the job ran past its limit on Modal, 24 s")
    steps.go()
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert "going on after step 7" in log
    assert made(launch) == list(range(20))


def test_the_bucket_away_for_a_while_costs_nothing_but_that(
    steps: Steps, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a silence that else counts as a loss."""

    def away() -> None:
        server.fail({"kind": "failing", "times": 10**6})
        threading.Timer(14, server.fail).start()
        threading.Timer(15, steps.go).start()

    launch = steps.launch()
    result, log = steps.run(launch, at_six(steps, away), quiet_s=8)
    assert result.success, "\n".join(log)
    assert submitted(log) == 1
    assert made(launch) == list(range(20))
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in range(20)]


def test_torn_and_lost_requests_change_nothing(steps: Steps, server: Server) -> None:
    def faults() -> None:
        kinds = ("torn", "failing", "lost", "repeated", "slow")
        patterns = (f"GET .*{JOB}", f"PUT .*{JOB}")
        server.fail(
            *(
                {"kind": k, "match": p, "times": 2, "seconds": 1}
                for p in patterns
                for k in kinds
                if (k, p[0]) != ("torn", "P")
            )
        )
        steps.go()

    launch = steps.launch()
    result, log = steps.run(launch, at_six(steps, faults))
    assert result.success, "\n".join(log)
    assert submitted(log) == 1
    assert made(launch) == list(range(20))


def test_what_was_sealed_is_refused_while_it_comes_damaged_and_fetched_again(steps: Steps) -> None:
    steps.killed_step(lambda: steps.said("step 5"))
    steps.go()
    wait_until(lambda: any(name.endswith("/sealed") for name in steps.bucket.list(JOB)))
    [name] = [name for name in steps.bucket.list(JOB) if name.endswith("/out/made")]
    stored = steps.bucket.get(f"{JOB}/{name}")
    assert stored
    steps.bucket.put(f"{JOB}/{name}", stored.body[:-1] + b"?")
    threading.Timer(3, lambda: steps.bucket.put(f"{JOB}/{name}", stored.body)).start()
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert made(launch) == list(range(20))
    assert not submitted(log)
    steps.bucket.put(f"{JOB}/{name}", stored.body[:-1] + b"?")
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert (submitted(log), made(launch)) == (1, list(range(20))), "what stays damaged is made again"
    assert (launch.job.out / "reports" / "first").read_text() == "20"  # type: ignore[attr-defined]


def test_a_container_that_was_only_thought_lost_overwrites_nothing(steps: Steps) -> None:
    """Two are at work on one input, and then one more on an attempt that another has taken over: each ends."""
    steps.killed_step(lambda: steps.said("step 5"))
    spawned = steps.modal.calls[0]
    zombie = spawned.pid
    spawned.start()
    wait_until(lambda: gone(zombie), 60)
    assert spawned.get(timeout=0)["exit_status"] == SUPERSEDED
    (spawned.folder / "output").unlink()
    other = spawned.pid
    wait_until(lambda: steps.said("going on after step 6"))
    steps.go()
    wait_until(lambda: gone(other), 60)
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert made(launch) == list(range(20))


def test_an_attempt_that_was_taken_over_ends_even_before_it_begins(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.killed_step(lambda: steps.said("step 5"))
    spawned = steps.modal.calls[0]
    first = spawned.pid
    monkeypatch.setattr(followed.Followed, "_is_beating", lambda *_: False)
    steps.bucket.delete(
        [f"jobs/stage-f00d/{name}" for name in steps.bucket.list("jobs/stage-f00d") if "calls/" in name]
    )
    threading.Timer(3, steps.go).start()
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, "\n".join(log)
    assert submitted(log) == 1
    wait_until(lambda: gone(first), 30)
    assert spawned.get(timeout=0)["exit_status"] == SUPERSEDED
    (spawned.folder / "output").unlink()
    spawned.start()
    wait_until(lambda: (spawned.folder / "output").exists(), 60)
    assert spawned.get(timeout=0)["exit_status"] == SUPERSEDED
    [record] = [name for name in steps.bucket.list(JOB) if name == "record"]
    assert record
    assert sum(name.endswith(f"/{HEARTBEAT}") for name in steps.bucket.list(JOB)) == 2
    assert made(launch) == list(range(20))


def test_a_sentence_of_its_own_and_a_crash_are_the_step_s_failure_and_are_not_tried_again(
    steps: Steps, capfd: pytest.CaptureFixture[str]
) -> None:
    steps.work(
        "from ernie_pipeline.utils.errors import PipelineError\n"
        "def work(job, report):\n    raise PipelineError('row 7 is blue; paint it')\n"
    )
    result, log = steps.run(steps.launch())
    assert failure(result) == "row 7 is blue; paint it"
    assert submitted(log) == 1
    steps.work("def work(job, report):\n    1 / 0\n")
    result, log = steps.run(steps.launch())
    assert failure(result).startswith(f"{WORK} failed with exit status 1")
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert submitted(log) == 1


def test_a_full_disk_of_the_container_is_told_and_is_not_tried_again(steps: Steps) -> None:
    steps.work("def work(job, report):\n    open('/dev/full', 'w').write('x' * 9999)\n")
    result, log = steps.run(steps.launch())
    assert "is full; make room" in failure(result)
    assert submitted(log) == 1


def test_a_call_that_was_stopped_by_hand_is_not_submitted_again(steps: Steps) -> None:
    result, log = steps.run(steps.launch(), at_six(steps, lambda: steps.modal.calls[0].cancel()))
    assert "was stopped on Modal by hand; run again: it goes on from what it has saved" in failure(result)
    assert submitted(log) == 1


def test_an_app_with_other_code_a_home_of_a_newer_format_and_another_job_than_was_submitted_are_refused(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it makes would stand under the fingerprint of this code; and who may write in the bucket gives no orders."""
    with monkeypatch.context() as patch:
        patch.setattr(call, "code_version", lambda: "0123456789abcdef")
        result, _ = steps.run(steps.launch())
    assert failure(result).startswith("the app on Modal has other code than the step; deploy it again: modal deploy")
    steps.modal.spawned.append(lambda _: steps.bucket.put("format", b"7"))  # after the step has looked
    result, _ = steps.run(steps.launch())
    assert "format says that this home is of format 7, which a newer version" in failure(result)
    steps.modal.spawned.clear()
    steps.bucket.delete(["format"])

    def altered(arguments: Any) -> None:
        key = f"{arguments[1]}/{arguments[2]}/call"
        stored = steps.bucket.get(key)
        assert stored
        steps.bucket.put(key, stored.body.replace(b"modal_work_of_test:work", b"os:system"))

    steps.modal.spawned.append(altered)
    result, _ = steps.run(steps.launch(), retries=0)
    assert failure(result).startswith(f"{WORK} was lost once on the app app on Modal (the job in s3://")


def test_all_of_it_at_once_and_in_any_order_comes_to_the_same(steps: Steps, server: Server) -> None:
    """Requests fail, are lost, torn, repeated and slow all the time, and containers go or come twice.

    Lines that a container had not sent when it was lost are lost with it, so what is said is not looked at.
    """
    steps.work(SLOWLY)
    chance, done, losses = random.Random(0), threading.Event(), list[str]()

    def trouble() -> None:
        while not done.wait(chance.uniform(0.5, 2)):
            kinds = chance.sample(["failing", "lost", "repeated", "slow", "torn"], 3)
            server.fail(*(_fault(kind, chance.randrange(1, 6)) for kind in kinds))
            going = [call for call in steps.modal.calls[-1:] if call.pid and not gone(call.pid)]
            if going and len(losses) < 3 and chance.random() < 0.3:
                losses.append(chance.choice(["preempt", "restart_killed", "lose", "start"]))
                getattr(going[0], losses[-1])()

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        launch = steps.launch()
        result, log = steps.run(launch, retries=9, quiet_s=20)
    finally:
        done.set()
        thread.join()
        server.fail()
    assert result.success, "\n".join([*losses, failure(result), *log])
    assert made(launch) == list(range(20))


def _fault(kind: str, times: int) -> dict[str, Any]:
    return {"kind": kind, "match": "GET .*jobs" if kind == "torn" else "jobs", "times": times, "seconds": 1}
