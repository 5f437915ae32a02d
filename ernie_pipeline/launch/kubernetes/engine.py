"""Kubernetes as an engine: a pod for each attempt at a job, asked for and looked at through the API.

What it has of dagster-k8s (0.29): `build_pod_body`, with which `PipesK8sClient` makes its pods, and the merging of
`K8sContainerContext`; messages are in Pipes' format. Not `PipesK8sClient.run`: it gives each pod a random name, so
that a step that is started again cannot find its job; it reads messages from the pod's log, which goes with the pod and
whose last lines may be missing (issue 20432), and it lives by that log's stream, which ends before the job does (after
four hours this was a failed job, 21331); it knows of a pod only what the API says of it (of a deleted one it waited for
ever, 22453; for one that does not start it waits five hours, cf. 14833); when interrupted it deletes the pod and does
not wait for what that saves; and a lost pod is an error to it. Here messages, heartbeat and what was made are files of
the home, and the API is only asked what it knows now: there is no watch or stream that could expire.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie_pipeline.launch.detached.engine import Status, Unreachable
from ernie_pipeline.launch.kubernetes.api import GOES_ON, Api, Refused, missing_right
from ernie_pipeline.launch.kubernetes.pod import (
    APP,
    BUILD,
    JOB_FILE,
    NAME,
    PodSettings,
    build_label,
    pod_body,
    pod_name,
)
from ernie_pipeline.launch.kubernetes.standing import ADVICE, NEVER_STARTED, Standing, standing
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.utils.errors import PipelineError

STOP_S = 5
"""Between the SIGTERM and the SIGKILL of a pod that had its time to save, or has nothing to save."""
LOG_LINES, LOG_BYTES = 5000, 2**20
"""How much of the end of a log is shown; the API could only cut its end off."""
LOG_TRIES = 5
"""How often the log of a pod is asked for whose node does not answer."""


@dataclass(frozen=True)
class KubernetesEngine:
    """The namespace at `api`. A pod that has not started after `pending_s` seconds is removed, and its step ends."""

    api: Api
    pods: PodSettings
    pending_s: float = 3600.0
    _pending: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _given_up: dict[str, Status] = field(default_factory=dict, init=False, repr=False, compare=False)
    _log_tries: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return self.api.title

    def submit(self, name: str, launch: Launch, job_file: Path, variables: dict[str, str]) -> None:
        """Start the job, see `Engine.submit`. What is there under that name already is taken for it if it is it."""
        self.api.connect()
        body = pod_body(name, launch, job_file, variables, self.pods)
        try:
            self.api.ask("POST", "pods", body=body)
        except Refused as error:
            if error.status == 409 and self._is_there(name, job_file):
                return
            raise PipelineError(self._refusal(error, name)) from error

    def status(self, name: str) -> Status:
        """What Kubernetes knows of the pod, see `Engine.status`."""
        if name in self._given_up:
            return self._given_up[name]
        pod = self._pod(name)
        if pod is None:
            return Status("unknown")
        found = self._standing(pod)
        if found.state == "waiting":
            return self._waiting(name, found)
        self._pending.pop(name, None)
        if found.state == "running":
            return Status("running", found.why)
        return Status("ended", found.why, found.exit_status, self._log(name, found.container), _failure(name, found))

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL `STOP_S` later; the pod is gone then. One that has ended is left to be looked at."""
        pod = self._pod(name)
        if pod and self._standing(pod).state != "ended":
            self._delete(pod_name(name))

    def forget(self, key: str) -> None:
        """Remove the pods of all attempts at what is built, with those that an earlier step has left."""
        query = {"labelSelector": f"{APP}=ernie-pipeline,{BUILD}={build_label(key)}"}
        for pod in (self._tell("GET", "pods", query, right="list pods") or {}).get("items") or []:
            if name := (pod.get("metadata") or {}).get("name"):
                self._delete(str(name))

    def _waiting(self, name: str, found: Standing) -> Status:
        """By this process's clock since it saw the pod first: the cluster's may be another."""
        since = self._pending.setdefault(name, time.monotonic())
        if time.monotonic() - since <= self.pending_s:
            return Status("waiting", found.why)
        self.stop(name)
        advice = ADVICE.get(
            found.reason, f'see "kubectl get events --field-selector involvedObject.name={pod_name(name)}"'
        )
        self._given_up[name] = Status(
            "ended",
            found.why,
            failure=f"{name} did not start on {self.title} within gpu.kubernetes.pending_s = {self.pending_s:g} s "
            f"({found.why}) and its pod was removed; {advice}, or raise the limit, and run again",
        )
        return self._given_up[name]

    def _standing(self, pod: dict[str, Any]) -> Standing:
        try:
            return standing(pod)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unreachable(f"{self.title} answers with what is no pod ({error}); {GOES_ON}") from error

    def _pod(self, name: str) -> dict[str, Any] | None:
        return self._tell("GET", f"pods/{pod_name(name)}", right="get pods")

    def _delete(self, pod: str) -> None:
        self._tell("DELETE", f"pods/{pod}", body={"gracePeriodSeconds": STOP_S}, right="delete pods")

    def _is_there(self, name: str, job_file: Path) -> bool:
        """Whether the pod of that name is this attempt's own: it was asked for twice, the answer being lost."""
        annotations = ((self._pod(name) or {}).get("metadata") or {}).get("annotations") or {}
        return (annotations.get(NAME), annotations.get(JOB_FILE)) == (name, str(job_file))

    def _tell(
        self, method: str, path: str, query: Any = None, body: Any = None, *, right: str
    ) -> dict[str, Any] | None:
        """What the API answers to who only follows a job, which goes on whatever it answers; None: it is not there."""
        try:
            return self.api.ask(method, path, query, body, right=right)
        except Refused as error:
            if error.status == 404:
                return None
            raise Unreachable(f"{self.title} answers with HTTP {error.status} ({error}); {GOES_ON}") from error

    def _log(self, name: str, container: str) -> str:
        """The last lines of a container that has ended."""
        query = {"container": container, "tailLines": LOG_LINES}
        try:
            log = self.api.read("GET", f"pods/{pod_name(name)}/log", query, right="get pods/log")
            return log[-LOG_BYTES:].decode("utf-8", "replace")
        except Refused:
            return ""  # there is none: it never started, or its node has gone with it
        except Unreachable as error:
            tries = self._log_tries[name] = self._log_tries.get(name, 0) + 1
            if tries < LOG_TRIES:
                raise
            return f"(its log could not be read: {str(error).removesuffix(f'; {GOES_ON}')})"

    def _refusal(self, error: Refused, name: str) -> str:
        """What to say of a pod that was not taken."""
        words, where = str(error), f'namespace "{self.api.home}"'
        if error.status == 403 and " cannot " in words:
            return missing_right(self.title, "create pods", self.api.home, words)
        if error.status == 409:
            return f"a pod {pod_name(name)} is in {where} that is not this job's; delete it, then run again"
        then = "correct gpu.kubernetes or its pod_template"
        if error.status == 403:
            then = "ask for less, or have the namespace's quota or policy changed, or gpu.kubernetes.pod_template"
        if error.status == 404:
            then = "set gpu.kubernetes.namespace to one that is there"
        return f"{self.title} does not take a pod in {where} (HTTP {error.status}: {words[:500]}); {then}"


def _failure(name: str, found: Standing) -> str:
    """The sentence of one that is not to be tried again."""
    if found.reason in NEVER_STARTED:
        return (
            f"{name} could not be started ({found.why}); see that gpu.kubernetes.image has gpu.kubernetes.python, and "
            "ernie_pipeline in it"
        )
    if found.reason == "DeadlineExceeded":
        return (
            f"{name} ran past the activeDeadlineSeconds of its pod; raise it in gpu.kubernetes.pod_template, or run "
            "again: it goes on from what it has saved"
        )
    return ""
