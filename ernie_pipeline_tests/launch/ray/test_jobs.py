"""The launcher `ray` on a real cluster: what its jobs say arrives, they outlive their steps, nothing is done twice."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ernie_pipeline.launch.detached.followed import Patience
from ernie_pipeline.launch.detached.launcher import FOLDER, DetachedLauncher
from ernie_pipeline.launch.launcher import Launch, OnProgress, ignore_progress
from ernie_pipeline.launch.ray.engine import RayEngine
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.children import ChildJob, gone, python_path, wait_until, work_in
from ernie_pipeline_tests.launch.following import failure, killed_step, step_with
from ernie_pipeline_tests.launch.ray.cluster import Cluster, Forwarded

WORK = f"ray_work_of_test_{os.getpid()}"

COUNTING = """
import os, time
from pathlib import Path
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.utils.errors import PipelineError

def work(job, report):
    place = Path(job.number_file)
    with StopSignals() as stop:
        first = len(place.read_text().split()) if place.exists() else 0
        report(f"going on after step {first}", {})
        for step in range(first, 20):
            with place.open("a") as done:
                done.write(f"{step}\\n")
            report(f"step {step}", {"step": step, "pid": os.getpid()})
            while step == 5 and not (place.parent / "go").exists() and not stop.requested:
                time.sleep(0.05)
            if stop.requested:
                (place.parent / "saved").touch()
                raise PipelineError(f"stopped by {stop.requested} after step {step}")
    (job.out / "made").write_text(f"{first}")
"""
"""Twenty steps, each written down as a checkpoint is; after the sixth it waits for the file `go`."""


class CountJob(ChildJob):
    """Where the steps are written down."""

    number_file: Path


class Steps:
    """Steps of one build in a home of their own, one after the other."""

    def __init__(self, place: Path, address: str):
        self.place, self.address = place, address
        self.state, self.counted = place / "unfinished", place / "counted"

    def launch(self, **changes: Any) -> Launch:
        """The job, into a folder of this step's own."""
        out = self.place / f"out-{time.monotonic_ns()}"
        out.mkdir()
        work = work_in(WORK).model_copy(update={"job": f"{CountJob.__module__}:{CountJob.__qualname__}"})
        job = CountJob(out=out, number_file=self.counted)
        given = {"threads": 1, "key": self.place.name, "state": self.state, "stop_grace_s": 20, **changes}
        return Launch(work=work, job=job, **given)

    def run(
        self, launch: Launch, on_progress: OnProgress = ignore_progress, **patience: Any
    ) -> tuple[dg.ExecuteInProcessResult, list[str]]:
        """A step in this process; what its log says."""
        launcher = DetachedLauncher(RayEngine(self.address), Patience(**patience))
        return step_with(launcher, launch, on_progress)

    def killed_step(self, when: Callable[[], bool]) -> None:
        """A step in a process of its own, killed outright then."""
        launch = self.launch()
        code = (
            "import sys, dagster as dg\nfrom pathlib import Path\n"
            "from ernie_pipeline_tests.launch.ray.test_jobs import CountJob, Steps, WORK\n"
            "import ernie_pipeline_tests.launch.ray.test_jobs as tests\n"
            "tests.WORK = sys.argv[1]\n"
            "steps = Steps(Path(sys.argv[2]), sys.argv[3])\nsteps.run(steps.launch())\n"
        )
        assert launch.state
        killed_step(code, [WORK, str(self.place), self.address], self.place / "killed.log", when)

    @property
    def steps(self) -> list[int]:
        """The steps that were made, in their order."""
        return [int(step) for step in self.counted.read_text().split()] if self.counted.exists() else []

    @property
    def job_folder(self) -> Path:
        """Of the one job."""
        return self.state / FOLDER / WORK

    @property
    def pid(self) -> int:
        """Of the job's process, as it said."""
        lines = (self.job_folder / "messages.jsonl").read_text().splitlines()
        said = [json.loads(line)["params"] for line in lines if line]
        return int([each["payload"]["progress"]["pid"] for each in said if "progress" in each.get("payload", {})][-1])


@pytest.fixture
def steps(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    (tmp_path / f"{WORK}.py").write_text(COUNTING)
    return Steps(tmp_path, cluster.address)


def test_messages_arrive_while_it_runs_and_its_files_are_the_step_s(steps: Steps) -> None:
    """The job waits for a file that the step writes on hearing of the sixth step."""
    heard: list[int] = []

    def hear(values: dict[str, Any]) -> None:
        heard.append(values["step"])
        if values["step"] == 5:
            (steps.place / "go").touch()

    launch = steps.launch()
    result, log = steps.run(launch, hear)
    assert result.success, log
    assert heard == list(range(20))
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in range(20)]
    assert {file.name for file in launch.job.out.iterdir()} == {"made"}  # type: ignore[attr-defined]


def test_a_killed_step_leaves_its_job_and_the_next_one_attaches(steps: Steps) -> None:
    steps.killed_step(lambda: len(steps.steps) == 6)
    pid = steps.pid
    assert not gone(pid)
    (threading.Timer(2, (steps.place / "go").touch)).start()
    launch = steps.launch()
    result, log = steps.run(launch)
    assert result.success, log
    assert any("is under way as" in line and "attached" in line for line in log)
    assert not any(line.startswith("submitted") for line in log)
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in range(20)]
    assert (steps.steps, steps.pid) == (list(range(20)), pid)
    assert (launch.job.out / "made").read_text() == "0"  # type: ignore[attr-defined]


def test_what_was_done_while_no_step_was_there_is_taken_over(steps: Steps) -> None:
    steps.killed_step(lambda: len(steps.steps) == 6)
    (steps.place / "go").touch()
    wait_until((steps.job_folder / "out" / "sealed.json").exists, 60)
    launch = steps.launch()
    result, log = Steps(steps.place, "http://127.0.0.1:9").run(launch)  # needs no cluster any more
    assert result.success, log
    assert steps.steps == list(range(20))
    assert (launch.job.out / "made").exists()  # type: ignore[attr-defined]


def test_an_interrupt_stops_the_job_which_saves_and_the_next_step_goes_on(steps: Steps) -> None:
    def interrupt(values: dict[str, Any]) -> None:
        if values["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    result, log = steps.run(steps.launch(), interrupt)
    [event] = result.get_step_failure_events()
    assert event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
    assert "stopped by SIGTERM after step 5" in log
    assert (steps.place / "saved").exists()
    assert gone(steps.pid)
    (steps.place / "go").touch()
    result, log = steps.run(steps.launch())
    assert result.success, log
    assert "going on after step 6" in log
    assert steps.steps == list(range(20))


def test_a_sentence_of_its_own_is_the_step_s_failure_and_is_not_tried_again(steps: Steps) -> None:
    (steps.place / f"{WORK}.py").write_text(
        "from ernie_pipeline.utils.errors import PipelineError\n"
        "def work(job, report):\n    raise PipelineError('row 7 is blue; paint it')\n"
    )
    result, log = steps.run(steps.launch())
    assert failure(result) == "row 7 is blue; paint it"
    assert sum(line.startswith("submitted") for line in log) == 1


def test_a_crash_is_not_tried_again_and_its_traceback_is_shown(steps: Steps, capfd: pytest.CaptureFixture[str]) -> None:
    (steps.place / f"{WORK}.py").write_text("def work(job, report):\n    1 / 0\n")
    result, log = steps.run(steps.launch())
    assert failure(result).startswith(f"{WORK} failed with exit status 1")
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert sum(line.startswith("submitted") for line in log) == 1


def test_a_full_disk_of_the_job_is_told_and_is_not_tried_again(steps: Steps) -> None:
    (steps.place / f"{WORK}.py").write_text("def work(job, report):\n    open('/dev/full', 'w').write('x' * 9999)\n")
    result, log = steps.run(steps.launch())
    assert "is full; make room" in failure(result)
    assert sum(line.startswith("submitted") for line in log) == 1


def test_the_time_limit_lets_the_job_save(steps: Steps) -> None:
    result, _ = steps.run(steps.launch(time_limit_s=6))
    assert failure(result).startswith(f"{WORK} ran past gpu.time_limit_s = 6 and was ended; raise the limit")
    assert failure(result).endswith("(stopped by SIGTERM after step 5)")
    assert (steps.place / "saved").exists()


def test_a_restarted_head_s_job_goes_on_from_what_it_saved(steps: Steps, cluster: Cluster) -> None:
    """Another head in the place of one that was lost: it knows no job, and the old one's workers end."""
    restarted = threading.Event()

    def restart() -> None:
        cluster.kill_head()
        wait_until(lambda: not cluster.living_workers(), 120)
        cluster.start_head()
        cluster.have(workers=1)
        (steps.place / "go").touch()
        restarted.set()

    def lose(values: dict[str, Any]) -> None:
        if values["step"] == 5 and not restarted.is_set():
            threading.Thread(target=restart).start()

    launch = steps.launch()
    result, log = steps.run(launch, lose)
    assert restarted.wait(120)
    assert result.success, log
    assert any("no longer knows it" in line and "submitting it again" in line for line in log)
    assert "going on after step 6" in log
    assert steps.steps == list(range(20))


def test_the_network_may_go_while_a_job_runs(steps: Steps, cluster: Cluster) -> None:
    """What a job says and makes comes by the disk that it shares with the step, and Ray need not answer meanwhile."""
    with Forwarded(cluster.dashboard) as network:

        def cut(values: dict[str, Any]) -> None:
            if values["step"] == 5:
                network.cut()
                threading.Timer(3, (steps.place / "go").touch).start()

        result, log = Steps(steps.place, network.address).run(steps.launch(), cut)
    assert result.success, log
    assert steps.steps == list(range(20))
    assert sum(line.startswith("submitted") for line in log) == 1


def test_a_job_that_no_worker_has_room_for_says_what_it_asks_for_and_is_ended_at_once(
    steps: Steps, cluster: Cluster
) -> None:
    shares = list[float]()

    def tell(share: float) -> None:
        shares.append(share)
        if len(shares) == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    start = time.monotonic()
    launcher = DetachedLauncher(RayEngine(cluster.address, cpus=4, memory_gib=2))
    result, log = step_with(launcher, steps.launch(stop_grace_s=120, at_work=tell), ignore_progress)
    assert time.monotonic() - start < 60
    assert not result.success
    assert set(shares) == {0.0}
    [line] = [line for line in log if "waits for a worker" in line]
    assert "(it asks for 4 CPUs, 0 GPUs and 2.0 GiB a process; the cluster's workers: " in line
    assert "with 1 CPUs, 0 GPUs and" in line
    assert steps.steps == []


def test_an_address_where_no_cluster_answers_is_one_sentence(steps: Steps) -> None:
    result, _ = Steps(steps.place, "http://127.0.0.1:9").run(steps.launch())
    assert failure(result).startswith("Ray at http://127.0.0.1:9 does not answer (ConnectionError); start it, or set")
    assert steps.steps == []


def test_without_ray_the_launcher_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(
        PipelineError, match=r'gpu\.launcher is "ray", but Ray is not installed here; install .*\[ray\]'
    ):
        RayEngine("http://127.0.0.1:9").status("any")
