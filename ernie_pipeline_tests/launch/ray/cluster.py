"""A real Ray cluster on loopback: a head and workers, each with processes of its own, as on machines of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

import psutil

from ernie_pipeline_tests.launch.children import wait_until

QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "10",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""A lost node is noticed in seconds; by default it takes a quarter of a minute, and a lost head a minute."""
TRIES = 3
"""Ray gives a node half a minute to start, which is not enough where many others want the same cores."""
NODES = f"127.{20 + os.getpid() // 200 % 200}.{os.getpid() % 200}."
"""Addresses of loopback that another process's cluster has not: on one address two nodes take each other's jobs.

Not 127.0.0.1, in the place of which Ray puts the machine's outer address.
"""
HEAD = f"{NODES}2"


class Cluster:
    """A head without CPUs, so that jobs run on workers, and `workers` of one CPU each."""

    def __init__(self, workers: int = 2, *, in_front: tuple[str, ...] = ()):
        self.port, self.dashboard = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.dashboard}"
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path has 107 bytes at most
        self.in_front, self.head, self.workers = in_front, None, dict.fromkeys(range(workers))
        self.head: subprocess.Popen[bytes] | None
        self.workers: dict[int, subprocess.Popen[bytes] | None]

    def __enter__(self) -> "Cluster":
        try:
            self.start_head()
            for number in self.workers:
                self.start_worker(number)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def start_head(self) -> None:
        """Start the head, with its dashboard, or another one in its place, which knows nothing of the one before."""
        dashboard = [f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
        place = ["--head", f"--node-ip-address={HEAD}", f"--port={self.port}", f"--temp-dir={self.folder}"]
        self.head = self._start("--num-cpus=0", f"--ray-client-server-port={free_port()}", *place, *dashboard)
        wait_until(lambda: len(self.nodes()) == 1 or ended(self.head), 120)
        assert not ended(self.head), self.log

    def start_worker(self, number: int) -> None:
        """Start a worker and wait until the head knows it."""
        known = len(self.nodes())
        address = f"--address={HEAD}:{self.port}"
        for _ in range(TRIES):
            self.workers[number] = self._start(address, f"--node-ip-address={NODES}{3 + number}", "--num-cpus=1")
            wait_until(lambda: len(self.nodes()) > known or ended(self.workers[number]), 120)
            if not ended(self.workers[number]):
                return
        raise AssertionError(self.log)

    def have(self, workers: int) -> None:
        """Start so many as are missing."""
        for number in range(workers):
            if ended(self.workers.get(number)):
                self.start_worker(number)

    def nodes(self) -> list[str]:
        """The addresses of the nodes that live, as the head sees it; none where it does not answer."""
        try:
            with urlopen(f"{self.address}/api/v0/nodes", timeout=5) as answer:
                nodes = json.load(answer)["data"]["result"]["result"]
        except (OSError, ValueError, KeyError):
            return []
        return [node["node_ip"] for node in nodes if node["state"] == "ALIVE"]

    def kill_worker_of(self, pid: int) -> int:
        """Kill the worker on which the process runs, with all its processes, as a machine that is switched off."""
        for number, worker in self.workers.items():
            if worker and pid in {process.pid for process in _family(worker.pid)}:
                kill(worker)
                self.workers[number] = None
                return number
        raise AssertionError(f"no worker has the process {pid}")

    def living_workers(self) -> list[int]:
        """Those whose main process runs."""
        return [number for number, worker in self.workers.items() if not ended(worker)]

    def kill_head(self) -> None:
        """The same for the head."""
        assert self.head
        kill(self.head)

    @property
    def log(self) -> str:
        """What the last one that was started said."""
        return max(self.folder.glob("start-*.log")).read_text()

    def stop(self) -> None:
        """End everything."""
        for process in (*self.workers.values(), self.head):
            if process:
                kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=80000000"]
        ray.append(f"--dashboard-agent-listen-port={free_port()}")  # else all nodes of a machine want the same one
        with (self.folder / f"start-{time.time_ns()}.log").open("wb") as log:
            return subprocess.Popen(
                [*self.in_front, *ray, *arguments],
                env={**os.environ, **QUICK},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Forwarded:
    """A port of loopback by which another one is reached, until the network in between is cut."""

    def __init__(self, port: int):
        self.target, self.listening, self.open = port, socket.create_server(("127.0.0.1", 0)), list[socket.socket]()
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def __enter__(self) -> "Forwarded":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()

    def cut(self) -> None:
        """From now on nothing is answered any more, and nobody is told so."""
        for each in (self.listening, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self.listening.accept()[0], socket.create_connection(("127.0.0.1", self.target))
                self.open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """With all that it started."""
    for each in _family(process.pid):
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    process.wait()


def ended(process: "subprocess.Popen[bytes] | None") -> bool:
    """Whether it is gone."""
    return process is None or process.poll() is not None


def free_port() -> int:
    """Below those that Ray gives its workers, 10002 to 19999, and those of outgoing connections."""
    for port in range(6400 + os.getpid() % 1000, 9000):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError("no port is free")


_given: set[int] = set()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
