"""What a pod is made of: one for each attempt at a job, by Dagster's own builder of pods, over a template of the user.

A bare pod and not a batch/v1 Job: the name of the pod is the attempt, so that a second one of that name is refused by
the API itself; a Job starts pods under names of its own, tells of their end later and in fewer words, needs rights of
its own, and what it does of use, to try again, the follower does, which knows what has been saved.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie_pipeline.launch.environment import handed_on
from ernie_pipeline.launch.kubernetes.api import NOT_INSTALLED
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.utils.errors import PipelineError, first_line

INIT = "ernie_pipeline.launch.kubernetes.init"

NAME, JOB_FILE = "ernie-pipeline/name", "ernie-pipeline/job-file"
BUILD, APP = "ernie-pipeline/build", "app.kubernetes.io/name"
CONTAINER = "kubectl.kubernetes.io/default-container"
"""Which container is the job's, whatever others an admission hook puts before it."""
UNLESS_SAID = {"automount_service_account_token": False, "enable_service_links": False}
"""By the template: a job asks nothing of the API, nor should it find the addresses of all services in its variables."""
SHM = "/dev/shm"
LONGEST = 63
"""Of a name by DNS-1123, which a pod's host name and a label's value must be."""
END_S = 10
"""What a pod gets to end on top of what the job gets to save."""


@dataclass(frozen=True)
class PodSettings:
    """What all pods of a cluster have in common. Each process of a job asks for `cpus`, `gpus` and `memory_gib`.

    `volume_claim`: the claim, mounted at `mount_path`, in which step and job see the home by the same path. `secrets`:
    names of Secrets whose entries are variables of the job. `template`: a YAML file with a pod that these are put over.
    """

    image: str = ""
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float | None = None
    volume_claim: str = ""
    mount_path: str = ""
    python: str = "python"
    pull_policy: str = ""
    service_account: str = ""
    secrets: Sequence[str] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    template: str = ""


def pod_name(name: str) -> str:
    """The pod's name for a name of any characters and length: readable in part, and no other name's."""
    readable = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[: LONGEST - 17].strip("-")
    return f"{readable or 'job'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def build_label(key: str) -> str:
    """The value of the label by which all attempts at what is built are found."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def pod_body(
    name: str, launch: Launch, job_file: Path, variables: Mapping[str, str], settings: PodSettings
) -> dict[str, Any]:
    """The pod that does what the job file says, as the API takes it. Raises `PipelineError` for wrong settings."""
    _check(launch, job_file, settings)
    try:
        return _merged(name, launch, job_file, variables, settings, _template(settings.template))
    except PipelineError:
        raise
    except ImportError as error:
        raise PipelineError(NOT_INSTALLED) from error
    except Exception as error:  # whatever dagster-k8s and the client raise for what is none of a pod's fields
        where = f"gpu.kubernetes.pod_template = {settings.template!r} and" if settings.template else "the settings"
        raise PipelineError(
            f"{where} gpu.kubernetes make no pod ({first_line(error)[:300]}); write it as a manifest of a Pod"
        ) from error


def _merged(
    name: str,
    launch: Launch,
    job_file: Path,
    variables: Mapping[str, str],
    settings: PodSettings,
    template: dict[str, Any],
) -> dict[str, Any]:
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import UserDefinedDagsterK8sConfig
    from dagster_k8s.pipes import build_pod_body
    from kubernetes.client import ApiClient

    meta, spec = dict(template.get("metadata") or {}), dict(template.get("spec") or {})
    first, *others = spec.pop("containers", None) or [{}]
    first = {"name": "job", "image": settings.image, **first}
    if not (settings.image or first["image"]):
        raise PipelineError("no image for the pods is set; set gpu.kubernetes.image to one that has ernie_pipeline")
    environment = {**handed_on(), **variables, **surroundings(launch.processes, launch.stop_grace_s)}
    under = UserDefinedDagsterK8sConfig.from_dict(
        {
            "container_config": _without_what_is_ours(first, environment, settings),
            "pod_spec_config": {**UNLESS_SAID, **_snake(spec)},
            "pod_template_spec_metadata": {each: meta[each] for each in ("labels", "annotations") if each in meta},
        }
    )
    over = _ours(name, launch, job_file, settings, str(first["name"]), has_shm=SHM in _mounts(first))
    merged = K8sContainerContext(run_k8s_config=under).merge(over).run_k8s_config
    pod = build_pod_body(
        pod_name=pod_name(name),
        image=None,
        command=None,
        env_vars={key: _literal(value) for key, value in environment.items()},
        base_pod_meta=merged.pod_template_spec_metadata,
        base_pod_spec={**merged.pod_spec_config, "containers": [dict(merged.container_config), *others]},
    )
    return {"apiVersion": "v1", "kind": "Pod", **ApiClient().sanitize_for_serialization(pod)}


def _ours(name: str, launch: Launch, job_file: Path, settings: PodSettings, container: str, *, has_shm: bool) -> Any:
    """What stands over the template."""
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import UserDefinedDagsterK8sConfig

    volumes, mounts = _volumes(launch, settings, has_shm)
    amounts = _amounts(launch, settings)
    arguments = [settings.python, "-m", INIT, settings.python, *command(job_file, launch.processes)[1:]]
    container_config = {
        "command": [_literal(each) for each in arguments],
        **({"image": settings.image} if settings.image else {}),
    }
    metadata = {
        "labels": {APP: "ernie-pipeline", BUILD: build_label(name.rpartition("-")[0])},
        "annotations": {NAME: name, JOB_FILE: str(job_file), CONTAINER: container},
    }
    spec = {
        "restart_policy": "Never",
        "termination_grace_period_seconds": math.ceil(launch.stop_grace_s) + END_S,
        **({"node_selector": dict(settings.node_selector)} if settings.node_selector else {}),
        **({"tolerations": [dict(each) for each in settings.tolerations]} if settings.tolerations else {}),
    }
    return K8sContainerContext(
        image_pull_policy=settings.pull_policy or None,
        service_account_name=settings.service_account or None,
        env_secrets=list(settings.secrets),
        volumes=volumes,
        volume_mounts=mounts,
        resources={"requests": amounts, "limits": amounts},
        run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(
            {
                "container_config": container_config,
                "pod_spec_config": spec,
                "pod_template_spec_metadata": metadata,
            }
        ),
    )


def _check(launch: Launch, job_file: Path, settings: PodSettings) -> None:
    """Raise `PipelineError` for a job that a pod could not do."""
    if not math.isclose(gpus := settings.gpus * launch.processes, round(gpus)):
        raise PipelineError(
            f"gpu.kubernetes.gpus = {settings.gpus:g} is a part of a GPU, which Kubernetes does not give; set a whole "
            "number, or 0 and the resource of a part (nvidia.com/mig-...) in gpu.kubernetes.pod_template"
        )
    if not settings.volume_claim and not settings.template:
        raise PipelineError(
            "a pod would not see the home; set gpu.kubernetes.volume_claim to the ReadWriteMany claim that holds it, "
            "or mount it in gpu.kubernetes.pod_template"
        )
    if settings.volume_claim and not job_file.is_relative_to(settings.mount_path):
        raise PipelineError(
            f"{job_file} is not below gpu.kubernetes.mount_path = {settings.mount_path!r}, so a pod would not see it; "
            "put ERNIE_PIPELINE_HOME, or ERNIE_PIPELINE_CACHE where the home is a bucket's address, on the volume of "
            "gpu.kubernetes.volume_claim"
        )


def _amounts(launch: Launch, settings: PodSettings) -> dict[str, str]:
    """What is requested, and no more is given: such a pod is the last that a node short of memory evicts."""
    amounts = {"cpu": f"{math.ceil(settings.cpus * launch.processes * 1000)}m"}
    if settings.memory_gib:
        amounts["memory"] = f"{math.ceil(settings.memory_gib * launch.processes * 1024)}Mi"
    if gpus := round(settings.gpus * launch.processes):
        amounts["nvidia.com/gpu"] = str(gpus)
    return amounts


def _volumes(launch: Launch, settings: PodSettings, has_shm: bool) -> tuple[list[Any], list[Any]]:
    """The home and, for several processes, shared memory of more than the 64 MiB that a container has."""
    volumes, mounts = [], []
    if settings.volume_claim:
        volumes.append({"name": "ernie-home", "persistent_volume_claim": {"claim_name": settings.volume_claim}})
        mounts.append({"name": "ernie-home", "mount_path": settings.mount_path})
    if launch.processes > 1 and not has_shm:
        volumes.append({"name": "ernie-shm", "empty_dir": {"medium": "Memory"}})  # counted as the container's memory
        mounts.append({"name": "ernie-shm", "mount_path": SHM})
    return volumes, mounts


def _without_what_is_ours(container: dict[str, Any], environment: Mapping[str, str], settings: PodSettings) -> Any:
    """The template's container, without what the job's own takes the place of: lists would be joined."""
    from dagster_k8s.models import k8s_snake_case_dict
    from kubernetes.client import V1Container

    kept = dict(k8s_snake_case_dict(V1Container, container))
    for each in ("command", "args"):
        kept.pop(each, None)
    kept["env"] = [each for each in kept.get("env") or [] if each.get("name") not in environment]
    home = settings.mount_path if settings.volume_claim else ""
    kept["volume_mounts"] = [each for each in kept.get("volume_mounts") or [] if each.get("mount_path") != home]
    return kept


def _snake(spec: dict[str, Any]) -> dict[str, Any]:
    from dagster_k8s.models import k8s_snake_case_dict
    from kubernetes.client import V1PodSpec

    return dict(k8s_snake_case_dict(V1PodSpec, spec))


def _mounts(container: dict[str, Any]) -> list[str]:
    mounts = container.get("volumeMounts") or container.get("volume_mounts") or []
    return [each.get("mountPath") or each.get("mount_path") for each in mounts]


def _literal(value: str) -> str:
    """Without what the kubelet would take for a reference to a variable, `$(NAME)`."""
    return value.replace("$", "$$")


def _template(file: str) -> dict[str, Any]:
    """The pod in the file; empty where none is set."""
    if not file:
        return {}
    import yaml

    try:
        pod = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PipelineError(
            f"gpu.kubernetes.pod_template = {file!r} cannot be read ({first_line(error)}); set it to a YAML file with "
            "a Pod"
        ) from error
    if (
        not isinstance(pod, dict)
        or pod.get("kind", "Pod") != "Pod"
        or set(pod) - {"apiVersion", "kind", "metadata", "spec"}
    ):
        raise PipelineError(
            f"gpu.kubernetes.pod_template = {file!r} is no manifest of one Pod; write apiVersion, kind: Pod, metadata "
            "and spec"
        )
    return pod
