"""Real work on a real cluster comes to the very bytes that the local launcher's comes to."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.launch.detached.place import Place
from ernie_pipeline.orchestration.engines import RayConfig
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.store.row_cache import KeptRows, read_rows
from ernie_pipeline.training.job import TrainingJob
from ernie_pipeline_tests.launch.children import left_of, python_path, wait_until
from ernie_pipeline_tests.launch.following import adapter, step_with_gpu
from ernie_pipeline_tests.launch.ray.cluster import Cluster


@pytest.fixture
def do(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Do a job through the resource `gpu`; what was logged, and the progress that was observed."""
    cluster.have(workers=2)
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))

    def run(
        work: str, job: BaseModel, hear: Callable[[str], None] = lambda line: None, gpus: int = 1, **ray: Any
    ) -> list[str]:
        config = RayConfig(address=cluster.address, gpus=0, **ray)
        gpu = GpuResource(launcher="ray" if ray else "local", ray=config, gpus=gpus, cpu_threads=1)
        unfinished = tmp_path / "unfinished" / job.out.name  # type: ignore[attr-defined]
        return step_with_gpu(gpu, work, job, unfinished, lambda values: hear(str(values)), monkeypatch)

    return run


def test_a_training_whose_worker_is_killed_comes_to_the_local_launcher_s_bytes(
    do: Callable[..., list[str]],
    cluster: Cluster,
    make_job: Callable[..., TrainingJob],
    short_base: Any,
    tmp_path: Path,
) -> None:
    steps = {"max_steps": 60, "eval_every": 30}  # so many that it is not done before the news of it arrives
    job = make_job("local", base=short_base, training=steps, checkpoints=tmp_path / "local checkpoints")
    do("training", job)
    checkpoints = tmp_path / "checkpoints"
    execution = ExecutionOverrides(checkpoint_s=1e-9)
    on_ray = job.model_copy(update={"out": tmp_path / "ray", "checkpoints": checkpoints, "execution": execution})
    on_ray.out.mkdir()
    killed: list[int] = []

    def kill(values: str) -> None:
        if not killed and any(checkpoints.glob("checkpoint-*")):
            [pid] = left_of(f"{tmp_path}/unfinished/ray/jobs/training/training.json")[-1:]
            killed.append(cluster.kill_worker_of(pid))

    log = do("training", on_ray, kill, retries=1)
    assert any("was lost" in line for line in log)
    assert adapter(on_ray) == adapter(job)
    resumed = json.loads((on_ray.out / "reports" / "run.json").read_text())["resumed_from"]
    assert len(resumed) == 1
    assert 0 < resumed[0] < 60


def test_a_training_on_two_nodes_comes_to_what_two_processes_under_torchrun_come_to(
    do: Callable[..., list[str]], make_job: Callable[..., TrainingJob], short_base: Any, tmp_path: Path
) -> None:
    job = make_job("local", base=short_base)
    do("training", job, gpus=2)
    on_ray = job.model_copy(update={"out": tmp_path / "ray"})
    on_ray.out.mkdir()
    do("training", on_ray, nodes=2)
    assert adapter(on_ray) == adapter(job)
    assert json.loads((on_ray.out / "reports" / "run.json").read_text())["processes"] == 2


def test_a_lost_worker_s_rows_are_answered_by_another_each_exactly_once(
    do: Callable[..., list[str]],
    cluster: Cluster,
    make_evaluation: Callable[..., EvaluationJob],
    short_base: Any,
    tmp_path: Path,
) -> None:
    job = make_evaluation("local", base=short_base)
    do("evaluation", job)
    kept = KeptRows(folder=tmp_path / "kept")
    on_ray = job.model_copy(update={"out": tmp_path / "ray", "rows": kept})
    on_ray.out.mkdir()
    part = Place(tmp_path / "unfinished" / "ray" / "jobs" / "evaluation-1-of-2")

    def kill() -> None:
        wait_until(lambda: part.last_beat > 0, 120)
        [pid] = left_of(f"{part.folder}/evaluation.json")[-1:]
        cluster.kill_worker_of(pid)

    with ThreadPoolExecutor(1) as other:
        loss = other.submit(kill)
        log = do("evaluation", on_ray, workers=2, retries=1)
        loss.result()
    assert any("was lost" in line for line in log)
    assert (on_ray.out / "predictions.parquet").read_bytes() == (job.out / "predictions.parquet").read_bytes()
    assert "problems sampled 0, reused 16" in log
    assert len(read_rows(kept.folder)) == 16
