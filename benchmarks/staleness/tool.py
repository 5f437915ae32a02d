"""What the comparison asks of a tool, and what all of them share: an environment, commands, the chain's files."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from chain import OUTPUTS, STAGES, edit

TIMEOUT = 300.0


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit status and the end of what it printed."""

    status: int
    text: str


class Tool(ABC):
    """One column of the table. `root` is the project's folder; all of a tool's state lies inside it."""

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # what pip installs
    versions: ClassVar[tuple[str, ...]]  # whose versions are recorded
    scheduler: ClassVar[str]  # scenario 18, from the documentation
    state: ClassVar[tuple[str, ...]] = ()  # what a fresh machine lacks, beside the store or cache

    def __init__(self, venv: Path, home: Path) -> None:
        self.venv, self.home = venv, home

    # -- what a tool must say

    @abstractmethod
    def setup(self, root: Path) -> None:
        """Write the tool's files into the project and initialise it."""

    @abstractmethod
    def command(self, root: Path) -> list[str]:
        """The command that builds."""

    @abstractmethod
    def status(self, root: Path) -> set[str] | None:
        """The stages that the tool says it would run; None if it offers no such report."""

    def tool_environment(self, root: Path) -> dict[str, str]:
        """Variables that the tool needs: state inside the project, no telemetry."""
        return {}

    def code_edited(self, root: Path, stage: str) -> None:
        """What a user of the tool does by hand after editing a stage's own file. Nothing, for most."""
        return

    def artifact(self, root: Path, stage: str) -> Path:
        """The file that holds a stage's output."""
        return root / OUTPUTS[stage]

    def forget(self, root: Path, stage: str) -> bool:
        """Remove the tool's record of a stage; False if the tool has no way to."""
        return False

    def launches(self, done: Done) -> int:
        """How many runs one build took."""
        return 1

    def recover(self, root: Path) -> Done | None:
        """The documented remedy after a kill that the plain command refuses to go on from; None if there is none."""
        return None

    def outputs(self, root: Path) -> dict[str, str]:
        """What each stage's output holds now; a missing one is left out."""
        paths = {stage: self.artifact(root, stage) for stage in STAGES}
        return {stage: path.read_text() for stage, path in paths.items() if path.is_file()}

    # -- shared

    def environment(self, root: Path, extra: Mapping[str, str] = {}) -> dict[str, str]:
        """A clean environment: nothing of the caller's but the language, a home of its own."""
        return {
            "PATH": f"{self.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{root / 'stages'}:{root / 'site'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
            "TOY_LOG": str(self.home / "executions.log"),
            "DO_NOT_TRACK": "1",
            **self.tool_environment(root),
            **extra,
        }

    def start(self, root: Path, command: Iterable[str], **extra: str) -> subprocess.Popen[str]:
        """Start a command in the project."""
        return subprocess.Popen(
            list(command),
            cwd=root,
            env=self.environment(root, extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def call(self, root: Path, command: Iterable[str], **extra: str) -> Done:
        """Run a command in the project to its end."""
        process = self.start(root, command, **extra)
        try:
            text, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            text, _ = process.communicate()
            text += "\n(timed out)"
        return Done(process.returncode, text)

    def must(self, root: Path, command: Iterable[str], **extra: str) -> str:
        """Run a command that has to succeed; its output."""
        done = self.call(root, command, **extra)
        if done.status:
            raise RuntimeError(f"{self.name}: exit status {done.status}\n{done.text[-4000:]}")
        return done.text

    def build(self, root: Path, **extra: str) -> Done:
        """The command that builds, to its end."""
        return self.call(root, self.command(root), **extra)

    def ran(self) -> list[str]:
        """The stages executed since `clear`, in order."""
        log = self.home / "executions.log"
        return log.read_text().split() if log.exists() else []

    def clear(self) -> None:
        """Forget the executions so far."""
        for name in ("executions.log", "executions.log.hangs"):
            (self.home / name).unlink(missing_ok=True)

    def set_parameter(self, root: Path, key: str, old: str, new: str) -> None:
        """Change one parameter in params.yaml."""
        edit(root / "params.yaml", f"{key}: {old}", f"{key}: {new}")


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all that came of it, leaves last so that none is adopted unseen."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for child, parent in (map(int, line.split()) for line in listing.splitlines()):
        children.setdefault(parent, []).append(child)
    doomed = [pid]
    for one in doomed:
        doomed.extend(children.get(one, []))
    for one in doomed:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 90.0) -> bool:
    """Whether the file appears while the process lives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if path.exists():
            return True
        time.sleep(0.05)
    return path.exists()
