"""The engines that the resource `gpu` may send its jobs to, and what each process of a job asks of them."""

import os
from typing import Any

import dagster as dg
from pydantic import Field

from ernie_pipeline.launch.detached.engine import Engine
from ernie_pipeline.launch.detached.followed import Patience
from ernie_pipeline.launch.detached.launcher import DetachedLauncher
from ernie_pipeline.launch.kubernetes.api import Api
from ernie_pipeline.launch.kubernetes.engine import KubernetesEngine
from ernie_pipeline.launch.kubernetes.pod import PodSettings
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

    @property
    def patience(self) -> Patience:
        """With a job that is lost, or silent."""
        return Patience(retries=self.retries, quiet_s=self.heartbeat_s)

    def engine(self) -> Engine:
        """The engine, as it is set here."""
        raise NotImplementedError

    def launcher(self) -> DetachedLauncher:
        """That sends jobs to the engine."""
        return DetachedLauncher(self.engine(), self.patience, self.workers)


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
        return DetachedLauncher(engine, self.patience, self.workers, engine.place)


class KubernetesConfig(JobsConfig):
    """The cluster of launcher "kubernetes": one pod for each attempt at a job, all its processes in it.

    Step and pods see the home and the base model by the same paths, through one ReadWriteMany claim or the template.
    """

    image: str = Field("", description="of the pods: one with this package; pod_template's where empty")
    namespace: str = Field("", description="where the pods are; this pod's own, or the context's, where empty")
    volume_claim: str = Field("", description="the ReadWriteMany claim that holds the home")
    mount_path: str = Field("", description="where the claim is mounted in step and pods; the home where empty")
    secrets: list[str] = Field([], description="names of Secrets whose entries become variables of the job")
    service_account: str = Field("", description="of the pods, which ask nothing of the API")
    image_pull_policy: str = Field("", description="Always, IfNotPresent or Never; the cluster's default where empty")
    node_selector: dict[str, str] = Field({}, description="labels that a pod's node must have")
    tolerations: list[dict[str, Any]] = Field([], description="taints that a pod's node may have")
    pod_template: str = Field("", description="a YAML file with a Pod, which these settings are put over")
    pending_s: float = Field(3600.0, gt=0, description="seconds after which a pod that has not started is given up")
    python: str = Field("python", description="the interpreter in the image")
    kubeconfig: str = Field("", description="the file; the cluster this runs in, or the user's file, where empty")
    context: str = Field("", description="in the kubeconfig; its current one where empty")

    def engine(self) -> Engine:
        """See `JobsConfig.engine`. Raises `PipelineError` for a home in a bucket whose cache is this machine's own."""
        settings = Settings.from_environment()
        if settings.address and not os.environ.get("ERNIE_PIPELINE_CACHE"):
            raise PipelineError(
                f"ERNIE_PIPELINE_HOME = {settings.address!r} is a bucket, and pods would not see this machine's cache "
                "of it; set ERNIE_PIPELINE_CACHE to a folder on the volume of gpu.kubernetes.volume_claim"
            )
        pods = PodSettings(
            image=self.image,
            cpus=self.cpus,
            gpus=self.gpus,
            memory_gib=self.memory_gib,
            volume_claim=self.volume_claim,
            mount_path=self.mount_path or str(settings.home),
            python=self.python,
            pull_policy=self.image_pull_policy,
            service_account=self.service_account,
            secrets=self.secrets,
            node_selector=self.node_selector,
            tolerations=self.tolerations,
            template=self.pod_template,
        )
        return KubernetesEngine(Api(self.kubeconfig, self.context, self.namespace), pods, self.pending_s)
