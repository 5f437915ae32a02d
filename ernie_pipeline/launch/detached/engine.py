"""What an engine that runs jobs elsewhere must be able to do: submit, tell, stop. The rest is the launcher's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ernie_pipeline.launch.detached.life import LOST
from ernie_pipeline.launch.launcher import Launch
from ernie_pipeline.utils.errors import PipelineError


class Unreachable(PipelineError):
    """The engine does not answer. What it runs may go on."""


@dataclass(frozen=True)
class Status:
    """What an engine says of a job; "unknown" when it knows none of that name, as after it was restarted.

    `why` in its own words; `exit_status` of one that ended, None where its machine was lost with it;
    `output`: the last lines of its stdout and stderr, where they are known. `failure`: a sentence for one that ended by
    no fault of its own, and that is not to be tried again.
    """

    state: Literal["waiting", "running", "ended", "unknown"]
    why: str = ""
    exit_status: int | None = None
    output: str = ""
    failure: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether what ended was taken from outside: its machine, or by a signal, such as of the kernel's memory
        killer."""
        status = self.exit_status
        return self.state == "ended" and (status is None or status < 0 or status >= 128 or status == LOST)


class Engine(Protocol):
    """An engine. Each call raises `Unreachable` where it does not answer."""

    @property
    def title(self) -> str:
        """What it is called in sentences, with its address."""

    def submit(self, name: str, launch: Launch, job_file: Path, variables: dict[str, str]) -> None:
        """Start what the job file says, under a name that no other job has had."""

    def status(self, name: str) -> Status:
        """What it knows of the job."""

    def stop(self, name: str) -> None:
        """End it at once, if it is there and has not ended."""


@runtime_checkable
class KeepsJobs(Protocol):
    """An engine that keeps what has ended until it is told that nobody needs it any more."""

    def forget(self, key: str) -> None:
        """Remove all whose names begin with `key`, which have ended or are superseded. May raise `Unreachable`."""
