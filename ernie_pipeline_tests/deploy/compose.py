"""compose.yaml without Docker: the same commands and environments, as processes on loopback."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from ernie_pipeline_tests.deploy.cluster import PASSWORD, Cluster, free_ports

DEPLOY = Path(__file__).parents[2] / "deploy"
PORTS = ("3000", "4000", "5000")
SECRETS = {
    "POSTGRES_PASSWORD": PASSWORD,
    "MLFLOW_ADMIN_PASSWORD": "administrator-for-tests",
    "MLFLOW_SECRET_KEY": "key-for-tests",
}
QUICK = {
    "poll_interval_seconds: 30": "poll_interval_seconds: 3",
    "run_end_seconds: 60": "run_end_seconds: 1",
    "run_queue:\n": "run_queue:\n  dequeue_interval_seconds: 1\n",
}
"""What the tests need not wait for; all else of dagster.yaml is as it is shipped."""


def load(name: str = "compose.yaml") -> dict[str, Any]:
    """A file of deploy/ as values, anchors and merges resolved."""
    values: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return values


def filled(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME:?message}` and `${NAME:-default}` as compose fills them."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if variables.get(name):
            return variables[name]
        assert kind == "-", f"{name}: {rest}"
        return rest

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


@dataclass
class Services:
    """The services of compose.yaml but PostgreSQL, which is `cluster`. `folder` stands for the volumes."""

    cluster: Cluster
    folder: Path
    variables: dict[str, str]
    extra: dict[str, str] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {port: str(free) for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        self.ports["5432"] = str(self.cluster.port)
        self.services = load()["services"]
        self.mounts: dict[str, Path] = {}
        for service in self.services.values():
            for volume in service["volumes"]:
                self._mount(*volume.split(":")[:2])

    def url(self, port: str) -> str:
        """The address that compose publishes at that port."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def environment(self, service: str) -> dict[str, str]:
        """Of a service; of this process's own what has nothing to do with the project."""
        ours = ("ERNIE_", "DAGSTER_", "MLFLOW_", "PG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        declared = self.services[service]["environment"]
        return kept | self.extra | {name: self._address(value) for name, value in declared.items()}

    def start(self, service: str) -> None:
        """Start it; it says what it says in `log`."""
        command = [self._here(part) for part in self.services[service]["command"]]
        with self.log(service).open("ab") as log:
            self.running[service] = subprocess.Popen(
                command,
                env=self.environment(service),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def healthy(self, service: str) -> bool:
        """What its health check says."""
        command = [self._here(part) for part in self.services[service]["healthcheck"]["test"][1:]]
        run = subprocess.run(command, env=self.environment(service), cwd=self.folder, capture_output=True)
        return run.returncode == 0

    def wait_healthy(self, service: str, seconds: float = 240) -> None:
        """Wait for it; fails with its log."""
        deadline = time.monotonic() + seconds
        while not self.healthy(service):
            assert self.running[service].poll() is None, self.log(service).read_text()[-5000:]
            assert time.monotonic() < deadline, self.log(service).read_text()[-5000:]
            time.sleep(2)  # each look is a process of two seconds of work

    def kill(self, service: str) -> None:
        """SIGKILL to it alone; its children live on."""
        process = self.running.pop(service)
        process.kill()
        process.wait()

    def stop_all(self) -> None:
        """End every service with all that it started."""
        families = []
        for process in self.running.values():
            if process.poll() is None:
                own = psutil.Process(process.pid)
                families += [own, *own.children(recursive=True)]
        for each in families:
            with _gone_is_fine():
                each.terminate()
        _, alive = psutil.wait_procs(families, timeout=10)
        for each in alive:
            with _gone_is_fine():
                each.kill()

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def _mount(self, source: str, target: str) -> None:
        if not source.startswith("."):
            self.mounts[target] = self.folder / source
            self.mounts[target].mkdir(exist_ok=True)
            return
        volume = next((self.mounts[v] for v in self.mounts if target.startswith(f"{v}/")), self.folder)
        copy = volume / Path(target).name
        shutil.copy(DEPLOY / source, copy)
        self.mounts[target] = copy
        text = copy.read_text()
        for slow, quick in QUICK.items():
            text = text.replace(slow, quick)
        copy.write_text(text)

    def _here(self, text: str) -> str:
        """A text of compose.yaml with this machine's folders, ports and addresses."""
        text = filled(text, self.variables)
        for target in sorted(self.mounts, key=len, reverse=True):
            text = re.sub(rf"(?<![\w/.]){target}(?![\w])", str(self.mounts[target]), text)
        text = re.sub(r"\b(3000|4000|5000|5432)\b", lambda found: self.ports[found[1]], text)
        return text.replace("0.0.0.0", "127.0.0.1")

    def _address(self, text: str) -> str:
        """The same for a variable, which may name another service."""
        return "127.0.0.1" if text in self.services else self._here(text).replace("//mlflow:", "//127.0.0.1:")


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return
