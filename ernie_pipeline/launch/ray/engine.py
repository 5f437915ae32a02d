"""Ray as an engine: jobs through its job API.

Not through dagster-ray's `PipesRayJobClient` (0.4.8): it submits without a look for a job that is there, so that a step
cannot attach; it reads messages from the driver's log, which goes with the driver's machine; when interrupted it has
the job killed three seconds after it was asked to end, before a checkpoint is saved; and a lost job is an error to it.
"""

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie_pipeline.launch.detached.engine import Status, Unreachable
from ernie_pipeline.launch.environment import handed_on
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.utils.errors import PipelineError

TRAIN = "ernie_pipeline.launch.ray.train"
ANSWER_S = 60.0


@dataclass(frozen=True)
class RayEngine:
    """The cluster whose dashboard is at `address`. Each process of a job asks for `cpus`, `gpus` and `memory_gib`.

    A training whose processes are to be spread over `nodes` goes through Ray Train. `python`: the interpreter there.
    """

    address: str
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float | None = None
    nodes: int = 1
    python: str = ""
    _clients: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def title(self) -> str:
        """What it is called in sentences, with its address."""
        return f"Ray at {self.address}"

    def submit(self, name: str, launch: Launch, job_file: Path, variables: dict[str, str]) -> None:
        """Start the job, see `Engine.submit`."""
        train = self.nodes > 1 and launch.processes > 1
        share = 0 if train else launch.processes  # Ray Train's driver asks for none itself, and is on the head
        memory = int((self.memory_gib or 0) * share * 2**30)
        together = {} if train else surroundings(launch.processes, launch.stop_grace_s)
        self._ask(
            "submit_job",
            entrypoint=f"cd {shlex.quote(str(Path.cwd()))} 2>/dev/null; exec {self._command(launch, job_file, train)}",
            submission_id=name,
            runtime_env={"env_vars": {**handed_on(), **variables, **together}},
            entrypoint_num_cpus=self.cpus * share,
            entrypoint_num_gpus=self.gpus * share,
            entrypoint_memory=memory or None,
        )

    def status(self, name: str) -> Status:
        """What Ray knows of the job, see `Engine.status`."""
        found = self._ask("get_job_info", name)
        if found is None:
            return Status("unknown")
        status, (why, _, output) = str(found.status.value), str(found.message or found.status).partition("\n")
        if status in ("PENDING", "RUNNING"):
            return Status("waiting", self._what_it_waits_for()) if status == "PENDING" else Status("running", why)
        failure = ""
        if status == "STOPPED":
            failure = f"{name} was stopped on {self.title} by hand; run again: it goes on from what it has saved"
        elif found.error_type == "JOB_SUPERVISOR_ACTOR_START_TIMEOUT":
            failure = (
                f"{self.title} had no worker free for {name}, for as long as its RAY_JOB_START_TIMEOUT_SECONDS says "
                f"({self._what_it_waits_for()}); add workers, or ask for less in gpu.ray"
            )
        # the driver's last lines are in Ray's message; to ask for its log fails where its machine is gone
        return Status("ended", why, 0 if status == "SUCCEEDED" else found.driver_exit_code, output, failure)

    def _what_it_waits_for(self) -> str:
        """What each process of a job asks for, and what the cluster's workers have, busy or not."""
        asked = _amounts(self.cpus, self.gpus, self.memory_gib or 0)
        nodes = [_amounts(*each) for each in self._workers()]
        has = "; ".join(f"{nodes.count(node)} with {node}" for node in dict.fromkeys(nodes)) or "none"
        return f"it asks for {asked} a process; the cluster's workers: {has}"

    def _workers(self) -> list[tuple[float, float, float]]:
        """CPUs, GPUs and GiB of each node that lives and has any CPU or GPU; [] where Ray does not say."""
        answer = self._ask("_do_request", "GET", "/api/v0/nodes?limit=1000")
        try:
            nodes = answer.json()["data"]["result"]["result"]
            totals = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
        except (AttributeError, KeyError, TypeError, ValueError):
            return []
        had = [(t.get("CPU", 0.0), t.get("GPU", 0.0), t.get("memory", 0.0) / 2**30) for t in totals]
        return [each for each in had if each[0] or each[1]]

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL three seconds later.

        One that waits for a worker ends as soon as it gets one: until then, or RAY_JOB_START_TIMEOUT_SECONDS have
        passed, Ray (2.60) goes on to list it as PENDING.
        """
        self._ask("stop_job", name)

    def _command(self, launch: Launch, job_file: Path, train: bool) -> str:
        python = self.python or sys.executable
        if not train:
            return shlex.join([python, *command(job_file, launch.processes)[1:]])
        request = [str(launch.processes), f"{self.cpus:g}", f"{self.gpus:g}", f"{self.memory_gib or 0:g}"]
        return shlex.join([python, "-m", TRAIN, str(job_file), *request])

    def _ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """What Ray answers; None where it knows no such job."""
        try:
            if not self._clients:
                self._clients.append(_client(self.address))
            return getattr(self._clients[0], method)(*arguments, **keywords)
        except OSError as error:  # requests' errors and ConnectionError are
            raise Unreachable(
                f"{self.title} does not answer ({type(error).__name__}); start it, or set gpu.ray.address to its "
                "dashboard; what runs there goes on, and the same command finds it again"
            ) from error
        except RuntimeError as error:
            if "status code 404" in str(error):
                return None
            if "status code 50" in str(error):  # a head that is going down, or coming up
                raise Unreachable(f"{self.title} answers with an error: {str(error)[:300]}") from error
            raise PipelineError(f"{self.title} refused {method}: {str(error)[:300]}") from error


def _amounts(cpus: float, gpus: float, memory_gib: float) -> str:
    return f"{cpus:g} CPUs, {gpus:g} GPUs and {memory_gib:.1f} GiB"


def _client(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise PipelineError(
            'gpu.launcher is "ray", but Ray is not installed here; install ernie_pipeline[ray], or set gpu.launcher to '
            '"local"'
        ) from error

    class Client(JobSubmissionClient):  # type: ignore[misc]
        """With a limit to how long an answer may take: Ray's own waits for ever for a head that hangs."""

        def _do_request(self, *arguments: Any, **keywords: Any) -> Any:
            return super()._do_request(*arguments, **{"timeout": ANSWER_S, **keywords})

    return Client(address)
