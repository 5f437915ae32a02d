"""Several processes that train together: real torchrun, with gloo on the CPU."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ernie_pipeline.launch.torchrun import gpus_here
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.orchestration.report import pipeline_errors_as_failures
from ernie_pipeline_tests.launch.children import ChildJob, gone, left_of, python_path, wait_until, work_in

CHILD = f"ranks_of_test_{os.getpid()}"
HEAD = "import os, time\n"

TRAIN = """
from ernie_pipeline.utils.errors import PipelineError
def work(job, report):
    import torch
    import torch.distributed as dist
    dist.init_process_group("gloo")
    total = torch.tensor([2.0 ** dist.get_rank()])
    dist.all_reduce(total)
    report("in step", {"sum": total.item(), "cpu_threads": job.limits.cpu_threads})
    dist.barrier()
    if dist.get_rank() == 1:
        raise PipelineError("rank 1 has no row; add one")
    dist.recv(total, src=1)
"""

ALONE = """
from ernie_pipeline.utils.errors import PipelineError
def work(job, report):
    raise PipelineError(f"{os.environ.get('WORLD_SIZE', 'alone')} with {job.limits.cpu_threads} threads")
"""

SAVE = """
from ernie_pipeline.training.stop import StopSignals
def work(job, report):
    rank = os.environ["RANK"]
    with StopSignals() as stop:
        with open(f"{job.out}/pid-{rank}.new", "w") as file:
            file.write(f"{os.getpid()} {os.getppid()}")
        os.rename(f"{job.out}/pid-{rank}.new", f"{job.out}/pid-{rank}")
        while not os.path.exists(f"{job.out}/pid-1"):
            time.sleep(0.02)
        report("training", {"step": 1})
        while not stop.requested:
            time.sleep(0.02)
        time.sleep(0.5 + 0.5 * int(rank))
        open(f"{job.out}/saved-{rank}", "w").close()
"""

STEP = """
import sys
import dagster as dg
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline_tests.launch.children import ChildJob, work_in

@dg.asset
def parent(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
    gpu.run(context, work_in(sys.argv[1]), ChildJob(out=sys.argv[2]), processes=gpu.gpus)
    return dg.MaterializeResult()

dg.materialize([parent], resources={"gpu": GpuResource(gpus=2)})
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    return tmp_path


def run(
    place: Path, work: str, interrupt: Any = None, on_one: bool = False, **settings: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """The step's failure, and what it heard."""
    (place / f"{CHILD}.py").write_text(HEAD + work)

    @dg.asset
    def parent(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
        if interrupt:
            threading.Thread(target=interrupt, daemon=True).start()
        with pipeline_errors_as_failures():
            processes = 1 if on_one else gpu.gpus
            gpu.run(context, work_in(CHILD), ChildJob(out=place, limits=gpu.limits(processes)), processes=processes)
        return dg.MaterializeResult()

    gpu, instance = GpuResource(**settings), dg.DagsterInstance.ephemeral()
    result = dg.materialize([parent], resources={"gpu": gpu}, instance=instance, raise_on_error=False)
    [event] = result.get_step_failure_events()
    logs = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)
    observed = [log.dagster_event.asset_observation_data.asset_observation.metadata for log in logs]
    return event.step_failure_data, [{key: value.value for key, value in values.items()} for values in observed]


def test_they_train_together_one_reports_and_the_sentence_of_any_is_the_step_s(place: Path) -> None:
    failure, heard = run(place, TRAIN, gpus=2, cpu_threads=6)
    assert heard == [{"sum": 3.0, "cpu_threads": 3}]
    assert failure.user_failure_data.description == "rank 1 has no row; add one"
    assert left_of(CHILD) == []


def test_what_does_not_share_its_work_runs_on_one_with_all_the_threads(place: Path) -> None:
    failure, _ = run(place, ALONE, on_one=True, gpus=2, cpu_threads=6)
    assert failure.user_failure_data.description == "alone with 6 threads"


def test_an_interrupted_step_lets_all_of_them_save(place: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: (place / "pid-0").exists() and (place / "pid-1").exists())
        os.kill(os.getpid(), signal.SIGINT)

    failure, _ = run(place, SAVE, interrupt, gpus=2)
    assert failure.error.cls_name == "DagsterExecutionInterruptedError"
    assert (place / "saved-0").exists()
    assert (place / "saved-1").exists()
    assert left_of(CHILD) == []


def test_a_step_killed_outright_takes_all_of_them_with_it(place: Path) -> None:
    (place / f"{CHILD}.py").write_text(HEAD + SAVE)
    command = [sys.executable, "-c", STEP, CHILD, str(place)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as step:
        wait_until(lambda: (place / "pid-0").exists() and (place / "pid-1").exists())
        pids = {int(pid) for rank in (0, 1) for pid in (place / f"pid-{rank}").read_text().split()}
        assert len(pids) == 3
        step.kill()
    wait_until(lambda: all(gone(pid) for pid in pids))
    assert not list(place.glob("saved-*"))


def test_gpus_are_counted_by_their_device_files_less_what_is_hidden(tmp_path: Path) -> None:
    assert gpus_here(tmp_path, {}) == 0
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    assert gpus_here(tmp_path, {}) == 3
    for shown, count in {"0": 1, "1,0": 2, "": 0, "-1": 0, "0,-1,1": 1, "0,1,2,3": 3, "GPU-8932f937,GPU-17": 2}.items():
        assert gpus_here(tmp_path, {"CUDA_VISIBLE_DEVICES": shown}) == count
