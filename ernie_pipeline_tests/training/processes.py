"""Trainings in processes of their own: forked from the test's, so that none imports torch anew; killed for real."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from ernie_pipeline.utils.errors import PipelineError

Report = Callable[[str, dict[str, Any]], None]
Disturb = Callable[[str], None]


class Ended(NamedTuple):
    """A process' exit code (-9: killed), the lines that it told, its error's sentence, and what it made."""

    code: int
    lines: list[str]
    told: str
    result: Any


class StartedWork:
    """`work` in a process of its own with further `environment`; `disturb` hears each line there."""

    def __init__(
        self,
        work: Callable[[Report], Any],
        disturb: Disturb = lambda line: None,
        environment: dict[str, str] | None = None,
    ):
        self.receive, send = multiprocessing.Pipe(duplex=False)

        def report(line: str, values: dict[str, Any]) -> None:
            send.send(("line", line))
            disturb(line)

        def child() -> None:
            from accelerate.state import AcceleratorState, GradientState

            os.environ.update(environment or {})
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
            try:
                send.send(("result", work(report)))
            except PipelineError as error:
                send.send(("told", str(error)))

        self.process = multiprocessing.get_context("fork").Process(target=child)
        self.process.start()
        send.close()

    def end(self) -> Ended:
        """Wait for it."""
        heard: list[tuple[str, Any]] = []
        try:
            while True:
                heard.append(self.receive.recv())
        except EOFError:
            self.process.join()
        last = dict(heard)
        lines = [value for kind, value in heard if kind == "line"]
        return Ended(self.process.exitcode or 0, lines, last.get("told", ""), last.get("result"))


def run(work: Callable[[Report], Any], disturb: Disturb = lambda line: None) -> Ended:
    """Do `work` in a process of its own."""
    return StartedWork(work, disturb).end()


def run_ranks(ranks: int, work: Callable[[Report], Any], disturb: Disturb = lambda line: None) -> list[Ended]:
    """Do `work` in as many processes, as torchrun starts them; the last one is the one to be disturbed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "GLOO_SOCKET_IFNAME": "lo"}
    started = []
    for rank in range(ranks):
        names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        act = disturb if rank == ranks - 1 else lambda line: None
        started.append(StartedWork(work, act, address | names))
    return [one.end() for one in started]
