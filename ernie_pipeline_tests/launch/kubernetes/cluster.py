"""The cluster behind the stand-in of the API: pods whose commands run as processes of this machine. See CONTRACT.md."""

import os
import re
import signal
import subprocess
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

Object = dict[str, Any]
TICK_S = 0.05


def now() -> str:
    """As the API writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Pod:
    """One pod: `manifest` as it was asked for, and the process of its first container."""

    def __init__(self, manifest: Object, log: Path):
        self.manifest, self.log = manifest, log
        self.process: subprocess.Popen[bytes] | None = None
        self.status: Object = {"phase": "Pending"}
        self.told: Object | None = None
        """A status that the API tells in the place of the true one."""
        self.node_lost = self.gone = False
        self.kill_at: float | None = None
        manifest["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def container(self) -> Object:
        found: Object = self.manifest["spec"]["containers"][0]
        return found

    @property
    def object(self) -> Object:
        """As the API gives it."""
        return {**self.manifest, "status": self.told or self.status}

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, secrets: dict[str, dict[str, str]]) -> None:
        """Run the container."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.log.parent)}
        for source in self.container.get("envFrom", []):
            environment |= secrets[source["secretRef"]["name"]]
        for variable in self.container.get("env", []):
            environment[variable["name"]] = expanded(variable["value"], environment)
        command = [expanded(each, environment) for each in self.container["command"]]
        state: Object = {"running": {"startedAt": now()}}
        with self.log.open("wb") as log:
            try:
                self.process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                words = f"failed to create containerd task: exec: {command[0]!r}: {error.strerror}"
                self.end(128, "StartError", words)
                return
        self._say("Running", state)

    def look(self) -> None:
        """Note an end."""
        if self.process and not self.running and "running" in self._state:
            code = self.process.returncode
            self.end(code if code >= 0 else 128 - code, "Completed" if code == 0 else "Error")

    def end(self, code: int, reason: str, message: str = "") -> None:
        """The container has ended."""
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": now()}
        self._say("Succeeded" if code == 0 else "Failed", {"terminated": ended})

    def kill(self, number: int = signal.SIGKILL) -> None:
        """All processes of the container at once, as the kernel does to a control group."""
        if self.process is None:
            return
        with suppress(psutil.Error):
            main = psutil.Process(self.process.pid)
            for each in [*main.children(recursive=True), main]:
                with suppress(psutil.Error):
                    each.send_signal(number)
        self.process.wait()

    @property
    def _state(self) -> Object:
        statuses = self.status.get("containerStatuses") or [{}]
        return dict(statuses[0].get("state") or {})

    def _say(self, phase: str, state: Object) -> None:
        name, conditions = self.container["name"], self.status.get("conditions", [])
        containers = [{"name": name, "state": state, "restartCount": 0, "image": self.container["image"]}]
        self.status = {"phase": phase, "conditions": conditions, "containerStatuses": containers}


class Cluster:
    """Its pods, what it has for them, and the switches of its faults."""

    def __init__(self, folder: Path):
        self.folder, self.lock, self.closed = folder, threading.RLock(), threading.Event()
        self.pods: dict[str, Pod] = {}
        self.all: list[Pod] = []
        """Those that are gone too, in their order."""
        self.secrets: dict[str, dict[str, str]] = {}
        self.unschedulable = self.no_image = ""
        self.removes_ended = False
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def add(self, manifest: Object) -> Pod:
        """Take a pod."""
        with self.lock:
            pod = Pod(manifest, self.folder / f"{manifest['metadata']['name']}.log")
            self.pods[pod.name] = pod
            self.all.append(pod)
            return pod

    def delete(self, name: str, grace_s: float | None = None) -> None:
        """As `kubectl delete pod` does."""
        with self.lock:
            pod = self.pods[name]
            given = pod.manifest["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
            if not pod.running and not pod.node_lost:
                self._remove(pod)
                return
            if "deletionTimestamp" not in pod.manifest["metadata"] and not pod.node_lost:
                assert pod.process
                pod.process.send_signal(signal.SIGTERM)
            pod.manifest["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": given}
            kill_at = time.monotonic() + given
            pod.kill_at = min(kill_at, pod.kill_at or kill_at)

    def vanish(self, name: str) -> None:
        """As `kubectl delete --force --grace-period=0`: gone from the API, and killed."""
        with self.lock:
            self.pods[name].kill()
            self._remove(self.pods[name])

    def evict(self, name: str) -> None:
        """By the kubelet, whose node is short of memory."""
        with self.lock:
            self.pods[name].kill()
            why = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 20Mi."
            self.pods[name].status = {"phase": "Failed", "reason": "Evicted", "message": why}

    def preempt(self, name: str) -> None:
        """By the scheduler, for another pod: it is asked to end, and has its grace."""
        with self.lock:
            target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
            self.pods[name].status.setdefault("conditions", []).append({**target, "message": "preempted by another"})
            self.delete(name)

    def run_out_of_memory(self, name: str) -> None:
        """The kernel kills the container."""
        with self.lock:
            self.pods[name].kill()
            self.pods[name].end(137, "OOMKilled")

    def lose_node(self, name: str) -> None:
        """Its machine is switched off: nobody tells the API."""
        with self.lock:
            self.pods[name].node_lost = True
            self.pods[name].kill()

    def close(self) -> None:
        """End everything."""
        self.closed.set()
        self.thread.join()
        for pod in self.all:
            if not pod.gone:
                pod.kill()

    def _remove(self, pod: Pod) -> None:
        pod.gone = True
        del self.pods[pod.name]

    def _live(self) -> None:
        while not self.closed.wait(TICK_S):
            with self.lock:
                for pod in list(self.pods.values()):
                    if not pod.node_lost:
                        self._step(pod)

    def _step(self, pod: Pod) -> None:
        pod.look()
        if pod.kill_at is not None and (not pod.running or time.monotonic() > pod.kill_at):
            pod.kill()
            self._remove(pod)
        elif self.removes_ended and pod.process and not pod.running:
            self._remove(pod)
        elif pod.status["phase"] == "Pending" and pod.process is None:
            self._try_to_start(pod)

    def _try_to_start(self, pod: Pod) -> None:
        names = [source["secretRef"]["name"] for source in pod.container.get("envFrom", [])]
        missing = next((name for name in names if name not in self.secrets), "")
        scheduled: Object = {"type": "PodScheduled", "status": "True"}
        waiting: Object | None = None
        if self.unschedulable:
            scheduled = {**scheduled, "status": "False", "reason": "Unschedulable", "message": self.unschedulable}
        elif self.no_image:
            waiting = {"reason": "ImagePullBackOff", "message": self.no_image}
        elif missing:
            waiting = {"reason": "CreateContainerConfigError", "message": f'secret "{missing}" not found'}
        else:
            pod.start(self.secrets)
            return
        pod.status = {"phase": "Pending", "conditions": [scheduled]}
        if waiting:
            pod.status["containerStatuses"] = [{"name": pod.container["name"], "state": {"waiting": waiting}}]


def expanded(text: str, variables: dict[str, str]) -> str:
    """As the kubelet does: `$$` is `$`, and `$(NAME)` the variable's value, if there is one."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, text)
