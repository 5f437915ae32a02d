"""The folder of a job that outlives its step: all that the step and the job know of each other.

It is below the build's folder for unfinished work, on a disk that step and job share, and goes with it.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ernie_pipeline.store.aside import make_folder, make_way
from ernie_pipeline.store.readable import read_file
from ernie_pipeline.store.sealed import damaged_file, discard, read_sealed, sealed_files

SEALED = "sealed.json"


class Attempt(BaseModel):
    """One process, or several that train together, at work on the job in `folder`: the latest one, or superseded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    name: str


class Place:
    """The files in the folder of one job.

    `attempt` names who is at work; a process that finds another name there ends, so of two that were started, because
    one seemed to be lost, one stays. `heartbeat` is touched by who is at work; `stop`, once it is there, asks it to
    end; `messages.jsonl` is what it said, in Pipes' format; `out/` is what it made, sealed once it is complete.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.messages, self.out = folder / "messages.jsonl", folder / "out"
        self._attempt, self._heartbeat, self._stop = folder / "attempt", folder / "heartbeat", folder / "stop"

    @property
    def address(self) -> str:
        """Where it is, the same for every step that may follow the job."""
        return str(self.folder)

    def refresh(self) -> bool:
        """The step's: get what the job has written, where that is not on this disk; whether anything may have come.

        Raises `Unreachable`.
        """
        return False

    def begin(self, anew: bool) -> Attempt:
        """The step's: supersede who may still be at work. `anew`: what earlier ones said counts no more.

        What was sealed counts no more either: it is damaged, or it would have been taken over.
        """
        make_folder(self.folder, below=self.folder.parent.parent)
        discard(self.out)
        for file in (self._stop, *self.folder.glob("error-*"), *([self.messages] if anew else [])):
            discard(file)
        attempt, unfinished = Attempt(folder=self.folder, name=uuid.uuid4().hex), self.folder / ".attempt"
        for file in (unfinished, self._attempt):
            make_way(file, below=self.folder.parent.parent)
        unfinished.write_text(attempt.name)
        unfinished.rename(self._attempt)
        return attempt

    @property
    def attempt(self) -> str:
        """Who is, or was, at work last; "" when nobody ever was."""
        with suppress(OSError):
            return read_file(self._attempt).decode(errors="replace")
        return ""

    def beat(self) -> None:
        """The job's: say that it lives."""
        with suppress(OSError):  # a disk that is full or away for a moment: the work itself tells
            self._heartbeat.touch()

    @property
    def last_beat(self) -> int:
        """When the job beat last, by its disk's clock: only to tell whether it has since."""
        with suppress(OSError):
            return self._heartbeat.stat().st_mtime_ns
        return 0

    def ask_to_stop(self) -> None:
        """The step's: ask who is at work to save it and end."""
        self._stop.touch()

    @property
    def stop_asked(self) -> bool:
        """Whether it is asked to."""
        return self._stop.exists()

    @property
    def sealed(self) -> bool:
        """Whether the job is done. Its files are not looked at, see `take_over`."""
        return (self.out / SEALED).exists()

    @property
    def spoilt(self) -> bool:
        """Whether the job is done, and what it made is damaged: nothing more will come of this attempt."""
        return self.sealed and not self.intact()

    def intact(self) -> bool:
        """Whether the job is done, and every file is as it was sealed."""
        manifest, problem = read_sealed(self.out / SEALED)
        files = None if problem else sealed_files(manifest)
        return files is not None and not damaged_file(self.out, files, besides=[SEALED])

    def take_over(self, out: Path) -> bool:
        """Put the files that the job has sealed into the folder `out`; False unless every one of them is intact.

        As links where the disk has them: a step that is killed meanwhile leaves the sealed folder as it was.
        """
        if not self.intact():
            return False
        manifest: dict[str, Any] = read_sealed(self.out / SEALED)[0]
        for name in manifest["files"]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            _link(self.out / name, out / name)
        return True


def _link(source: Path, target: Path) -> None:
    from shutil import copyfile

    try:
        os.link(source, target)
    except OSError:
        copyfile(source, target)
