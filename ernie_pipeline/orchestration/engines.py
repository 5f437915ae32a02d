"""The engines that the resource `gpu` may send its jobs to, and what each process of a job asks of them."""

import dagster as dg
from pydantic import Field

from ernie_pipeline.launch.detached.engine import Engine
from ernie_pipeline.launch.detached.followed import Patience
from ernie_pipeline.launch.detached.launcher import DetachedLauncher
from ernie_pipeline.launch.modal.engine import ModalEngine
from ernie_pipeline.launch.ray.engine import RayEngine
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.utils.errors import PipelineError


class JobsConfig(dg.Config):
    """What is asked of any engine."""

    cpus: float = Field(1.0, gt=0, description="CPUs that a process asks for; it runs as many threads")
    gpus: float = Field(1.0, ge=0, description="GPUs that a process asks for; 0 for machines without")
    memory_gib: float | None = Field(None, gt=0, description="main memory that a process asks for")
    workers: int = Field(1, ge=1, description="jobs that share the rows of a sampling or an evaluation")
    retries: int = Field(2, ge=0, description="how often a lost job is submitted again")
    heartbeat_s: float = Field(60.0, gt=0, description="seconds without a heartbeat after which a job is lost")

    @property
    def machines(self) -> int:
        """How many a training is spread over."""
        return 1

    def engine(self) -> Engine:
        """The engine, as it is set here."""
        raise NotImplementedError

    def launcher(self) -> DetachedLauncher:
        """That sends jobs to the engine."""
        return DetachedLauncher(self.engine(), Patience(retries=self.retries, quiet_s=self.heartbeat_s), self.workers)


class RayConfig(JobsConfig):
    """The Ray cluster of launcher "ray".

    Its machines have this package, and see the home and the base model by the same paths.
    """

    address: str = Field("http://127.0.0.1:8265", description="of its dashboard, which takes the jobs")
    nodes: int = Field(1, ge=1, description="machines that a training is spread over, gpu.gpus processes on each")
    python: str = Field("", description="the interpreter on the cluster's machines; as here where empty")

    @property
    def machines(self) -> int:
        """See `JobsConfig.machines`."""
        return self.nodes

    def engine(self) -> Engine:
        """See `JobsConfig.engine`."""
        return RayEngine(self.address, self.cpus, self.gpus, self.memory_gib, self.nodes, self.python)


class ModalConfig(JobsConfig):
    """The app of launcher "modal", as `deploy/modal_app.py` deploys it; GPU, memory and timeout are set there.

    The home is in a bucket, through which all goes that the containers and this machine know of each other.
    """

    app: str = Field("ernie-pipeline", description="the deployed app's name")
    heartbeat_s: float = Field(300.0, gt=0, description="as above: a preempted container takes a while to come back")

    def engine(self) -> ModalEngine:
        """See `JobsConfig.engine`. Raises `PipelineError` where the home is not in a bucket."""
        settings = Settings.from_environment()
        if settings.address is None:
            raise PipelineError(
                'gpu.launcher is "modal", whose containers share no disk with this machine; set ERNIE_PIPELINE_HOME to '
                "a bucket's address (s3://bucket/folder)"
            )
        return ModalEngine(self.app, settings.address, settings.home)

    def launcher(self) -> DetachedLauncher:
        """See `JobsConfig.launcher`."""
        engine = self.engine()
        patience = Patience(retries=self.retries, quiet_s=self.heartbeat_s)
        return DetachedLauncher(engine, patience, self.workers, engine.place)
