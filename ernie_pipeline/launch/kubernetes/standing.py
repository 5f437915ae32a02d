"""What the API says of a pod (core/v1 `PodStatus`), as what the launcher asks: does the job wait, run, or is it over?

By the job's own container, not the pod's phase: a pod with a service mesh's container beside goes on for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ernie_pipeline.launch.kubernetes.pod import CONTAINER

NEVER_STARTED = ("StartError", "ContainerCannotRun")
"""Of a container whose command is not in the image: told as exit status 128, and nothing of it is lost."""
ADVICE = {
    "Unschedulable": "add a node that has what it asks for, or ask for less in gpu.kubernetes",
    "SchedulingGated": "see what holds it back, such as a queue",
    "ImagePullBackOff": "see that gpu.kubernetes.image is there, and may be pulled",
    "ErrImagePull": "see that gpu.kubernetes.image is there, and may be pulled",
    "InvalidImageName": "set gpu.kubernetes.image to an image's name",
    "CreateContainerConfigError": "make the Secret or ConfigMap that it names, or correct gpu.kubernetes.secrets",
}
"""What to do about a pod that does not start, by the reason that Kubernetes gives."""


@dataclass(frozen=True)
class Standing:
    """`reason`, one word of Kubernetes, and `why`, with its message; `container`: whose log tells more.

    `exit_status` None: it was taken from outside.
    """

    state: Literal["waiting", "running", "ended"]
    reason: str = ""
    why: str = ""
    exit_status: int | None = None
    container: str = ""


def standing(pod: dict[str, Any]) -> Standing:
    """Of the pod as the API gives it, whatever of it is there."""
    status = pod.get("status") or {}
    phase, name = str(status.get("phase") or "Pending"), job_container(pod)
    statuses = list(_statuses(status))
    state = next((each.get("state") or {} for each in statuses if each.get("name") == name), {})
    if phase in ("Succeeded", "Failed") or state.get("terminated"):
        return _ended(pod, phase, name, statuses, state.get("terminated"))
    if phase == "Unknown" or state.get("running") or (phase == "Running" and not state.get("waiting")):
        return Standing("running", phase, phase)
    reason, message = _what_it_waits_for(status, statuses)
    return Standing("waiting", reason, _told(reason, message))


def job_container(pod: dict[str, Any]) -> str:
    """The name of the container that does the job."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return str(annotations.get(CONTAINER) or containers[0].get("name") or "")


def _ended(
    pod: dict[str, Any], phase: str, name: str, statuses: list[dict[str, Any]], end: dict[str, Any] | None
) -> Standing:
    if taken := _taken_by(pod):
        return Standing("ended", taken[0], _told(*taken), None, name)
    if end is None:  # one before it has failed: an init container
        failed = ((each, (each.get("state") or {}).get("terminated") or {}) for each in statuses)
        name, end = next(((str(one["name"]), it) for one, it in failed if it.get("exitCode")), (name, {}))
    code = end.get("exitCode")
    if code is None and phase == "Succeeded":
        code = 0
    reason = str(end.get("reason") or (pod.get("status") or {}).get("reason") or phase)
    words = str(end.get("message") or "").strip()
    if reason == "Error":
        words = words or f"exit status {code}"
    if reason == "OOMKilled":
        words = words or "it took more memory than it may; raise gpu.kubernetes.memory_gib"
    return Standing("ended", reason, _told(reason, words), None if code is None else int(code), name)


def _taken_by(pod: dict[str, Any]) -> tuple[str, str] | None:
    """What took the pod from outside, reason and message: eviction, preemption, its node's end, somebody's `delete`.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions; the kubelet gives its own
    reasons (Evicted, NodeShutdown, OutOfcpu, ...) to the pod, not to a container.
    """
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return str(condition.get("reason") or "DisruptionTarget"), str(condition.get("message") or "")
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "deleted", "its pod was deleted"
    if (reason := str(status.get("reason") or "")) and reason != "DeadlineExceeded":
        return reason, str(status.get("message") or "")
    return None


def _what_it_waits_for(status: dict[str, Any], statuses: list[dict[str, Any]]) -> tuple[str, str]:
    """Reason and message: the scheduler's, or a container's that cannot start."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("reason") or "Unschedulable"), str(condition.get("message") or "")
    waiting = [it for each in statuses if (it := (each.get("state") or {}).get("waiting"))]
    said = [it for it in waiting if it.get("message")] or waiting or [{}]
    return str(said[0].get("reason") or "Pending"), str(said[0].get("message") or "")


def _statuses(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _told(reason: str, message: str) -> str:
    return f"{reason}: {' '.join(message.split())[:500]}" if message else reason
