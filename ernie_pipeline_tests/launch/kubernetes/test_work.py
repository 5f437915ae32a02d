"""Real work in pods comes to the very bytes that the local launcher's comes to."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.orchestration.gpu import GpuResource, KubernetesConfig
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.training.job import TrainingJob
from ernie_pipeline_tests.launch.children import python_path
from ernie_pipeline_tests.launch.following import adapter, step_with_gpu
from ernie_pipeline_tests.launch.kubernetes.server import Api

pytestmark = pytest.mark.long


@pytest.fixture
def do(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Do a job through the resource `gpu`; what was logged."""
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))

    def run(
        work: str, job: Any, gpus: int = 1, hear: Callable[[], None] = lambda: None, **kubernetes: Any
    ) -> list[str]:
        given = {"image": "ernie", "volume_claim": "home", "mount_path": str(tmp_path), "python": sys.executable}
        config = KubernetesConfig(kubeconfig=str(api.kubeconfig), gpus=0, **given, **kubernetes)
        launcher = "kubernetes" if kubernetes else "local"
        gpu = GpuResource(launcher=launcher, kubernetes=config, gpus=gpus, cpu_threads=1)  # type: ignore[arg-type]
        unfinished = tmp_path / "unfinished" / job.out.name
        return step_with_gpu(gpu, work, job, unfinished, lambda values: hear(), monkeypatch)

    return run


def test_two_processes_in_one_pod_that_is_deleted_come_to_the_local_launcher_s_bytes(
    do: Callable[..., list[str]], api: Api, make_job: Callable[..., TrainingJob], short_base: Any, tmp_path: Path
) -> None:
    steps = {"max_steps": 60, "eval_every": 30}  # so many that it is not done before the news of it arrives
    job = make_job("local", base=short_base, training=steps)
    do("training", job, gpus=2)
    checkpoints, execution = tmp_path / "checkpoints", ExecutionOverrides(checkpoint_s=1e-9)
    in_pods = job.model_copy(update={"out": tmp_path / "pods", "checkpoints": checkpoints, "execution": execution})
    in_pods.out.mkdir()
    taken: list[str] = []

    def take() -> None:
        if not taken and any(checkpoints.glob("checkpoint-*")):
            taken.extend(api.cluster.pods)
            api.cluster.delete(taken[0])

    log = do("training", in_pods, gpus=2, hear=take, retries=1)
    assert any("was lost" in line for line in log), log
    assert adapter(in_pods) == adapter(job)
    run = json.loads((in_pods.out / "reports" / "run.json").read_text())
    assert (run["processes"], len(run["resumed_from"]), len(api.cluster.all)) == (2, 1, 2)
    assert 0 < run["resumed_from"][0] < 60
    mounts = api.cluster.all[0].container["volumeMounts"]
    assert "/dev/shm" in [mount["mountPath"] for mount in mounts]
