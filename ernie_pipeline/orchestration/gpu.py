"""The Dagster resource `gpu`: where training and evaluation run, on how many GPUs of which kind, and its limits."""

import contextlib
import fcntl
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import BaseModel, Field

from ernie_pipeline.launch.launcher import STOP_GRACE_S, Launch, OnProgress, ignore_progress
from ernie_pipeline.launch.local import LocalLauncher
from ernie_pipeline.launch.torchrun import gpus_here
from ernie_pipeline.launch.work import WorkKind
from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.rows_job import may_be_shared
from ernie_pipeline.orchestration.engines import JobsConfig, KubernetesConfig, ModalConfig, RayConfig
from ernie_pipeline.orchestration.metering import metered
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.load import parse_execution
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.utils.errors import PipelineError


class ExecutionConfig(dg.Config):
    """How the work is computed, over what recipe and environment say: `ExecutionOverrides`, for the launchpad."""

    profile: str | None = Field(None, description="cpu, 24gb, 40gb or 80gb; chosen from the device where absent")
    micro_batch: int | None = Field(None, description="documents computed at a time")
    packing: bool | None = Field(None, description="several documents a row instead of padding")
    pack_tokens: int | None = Field(None, description="tokens that a packed row holds at most")
    memory_limit_gib: float | None = Field(None, description="GPU memory that may be taken")
    gradient_checkpointing: bool | None = Field(None, description="activations computed twice instead of kept")
    generation_rows: int | None = Field(None, description="prompts answered at a time")
    checkpoint_s: float | None = Field(None, description="seconds between two checkpoints of a training")


class GpuResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Does work of `launch.work.WORK` in a process of its own. On a machine without a GPU it says so and uses the CPU.

    None of these settings enters a fingerprint: they change where and how fast, not what.
    """

    launcher: Literal["local", "ray", "modal", "kubernetes"] = Field("local", description="where the process runs")
    ray: RayConfig = RayConfig()  # type: ignore[call-arg]
    modal: ModalConfig = ModalConfig()  # type: ignore[call-arg]
    kubernetes: KubernetesConfig = KubernetesConfig()  # type: ignore[call-arg]
    gpus: int = Field(1, ge=1, description="how many GPUs of a machine a training gets, a process for each")
    kind: str = Field("", description='a part of the GPU\'s name, such as "A100"; empty for any')
    memory_gib: float | None = Field(None, gt=0, description="GPU memory it may take, or main memory on a CPU")
    time_limit_s: float | None = Field(None, gt=0, description="seconds after which it is asked to stop")
    cpu_threads: int | None = Field(None, ge=1, description="threads on a CPU; default: half of the cores")
    stop_grace_s: float = Field(
        STOP_GRACE_S, gt=0, description="seconds that a stopped trainer gets to finish its step and save"
    )
    execution: ExecutionConfig = ExecutionConfig()  # type: ignore[call-arg]  # Dagster's plugin sees no defaults

    def execution_over(self, recipe: ExecutionOverrides) -> ExecutionOverrides:
        """What is set here, and of the recipe what is not. Raises `PipelineError` for a value that cannot be."""
        return parse_execution(self.execution.model_dump(), where="the resource gpu").over(recipe)

    @property
    def jobs(self) -> JobsConfig | None:
        """What is asked of the engine that the launcher sends jobs to; None where they run here."""
        return {"local": None, "ray": self.ray, "modal": self.modal, "kubernetes": self.kubernetes}[self.launcher]

    @property
    def processes(self) -> int:
        """How many share a training."""
        return self.gpus * (self.jobs.machines if self.jobs else 1)

    def limits(self, processes: int = 1) -> DeviceLimits:
        """What each of the `processes` of a job may take: on this machine they share the threads."""
        if self.jobs:
            threads = self.cpu_threads or max(1, int(self.jobs.cpus))
            return DeviceLimits(kind=self.kind, memory_gib=self.memory_gib, cpu_threads=threads)
        threads = self.cpu_threads or max(1, (os.cpu_count() or 2) // 2)  # base and adapter run side by side
        return DeviceLimits(kind=self.kind, memory_gib=self.memory_gib, cpu_threads=max(1, threads // processes))

    def run(
        self,
        context: dg.AssetExecutionContext,
        work: str | WorkKind,
        job: BaseModel,
        *,
        unfinished: Path | None = None,
        processes: int = 1,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Do `work` on `job` and wait; what it reports becomes observations of the asset, and `on_progress` hears it.

        Several `processes` share it, on a machine without a GPU too. The job holds the `limits` already. `unfinished`:
        the folder of the build that it is for, `<stage>/<fingerprint>`; what it spends is recorded there, and by it a
        launcher whose jobs outlive their steps finds one again. Raises `PipelineError`, see `Launcher.run` and
        `metered`.
        """
        launch = Launch(
            work=work,
            job=job,
            threads=self.limits(processes).cpu_threads,
            processes=processes,
            time_limit_s=self.time_limit_s,
            stop_grace_s=self.stop_grace_s,
            environment={"TRITON_CACHE_DIR": str(Settings.from_environment().compiled)},
            key=f"{unfinished.parent.name}-{unfinished.name}" if unfinished else "",
            state=unfinished,
        )

        def tell(values: dict[str, Any]) -> None:
            context.log_event(dg.AssetObservation(context.asset_key, metadata=values))
            on_progress(values)

        if self.jobs:
            _elsewhere(context, launch, self.jobs, tell)
        else:
            self._here(context, launch, tell)

    def _here(self, context: dg.AssetExecutionContext, launch: Launch, tell: OnProgress) -> None:
        on_gpu = Path("/dev/nvidiactl").exists()
        if on_gpu and launch.processes > 1 and (here := gpus_here()) < launch.processes:
            raise PipelineError(
                f"gpu.gpus = {launch.processes}, but this machine shows {here}; set it to {max(1, here)}"
            )
        launch = replace(launch, memory_gib=None if on_gpu else self.memory_gib)
        with (
            _one_at_a_time() if on_gpu else contextlib.nullcontext(),
            metered(context, launch.state, launch.processes if gpus_here() else 0) as meter,
        ):
            launch = replace(launch, stop_if=meter.passed)
            LocalLauncher().run(context, launch, tell)


def _elsewhere(context: dg.AssetExecutionContext, launch: Launch, jobs: JobsConfig, tell: OnProgress) -> None:
    """Several at a time: an engine gives a GPU to one process only."""
    gpus = math.ceil(jobs.gpus * max(launch.processes, jobs.workers if may_be_shared(launch.job) else 1))
    with metered(context, launch.state, gpus, waits=True) as meter:
        launch = replace(launch, stop_if=meter.passed, at_work=meter.at_work)
        jobs.launcher().run(context, launch, tell)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """The GPU to one process at a time, whatever the executor or the instance's pools allow."""
    home = Settings.from_environment().home
    home.mkdir(parents=True, exist_ok=True)
    with (home / "gpu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the kernel when the owner dies
        yield
