"""The training's checkpoints on disk: each is complete or not there, whatever ended the process that wrote it."""

import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.store.sealed import damaged_file, discard, list_files, read_sealed, write_sealed
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence, is_disk_full

MANIFEST = "checkpoint.json"
NAME = re.compile(r"checkpoint-([0-9]+)")
NEARLY_FULL = 2**16


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps, in `folder`, and the `facts` (values of JSON's types) told with it."""

    step: int
    folder: Path
    facts: dict[str, Any]


class Checkpoints:
    """`<folder>/checkpoint-<step>/`, each with a manifest of its files' sizes and hashes.

    Only one process at a time may write there.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def newest(self, on_broken: Callable[[str], None]) -> Checkpoint | None:
        """The intact checkpoint of the highest step, None if there is none; every file of it is read.

        Tells `on_broken`, in a sentence each, which ones it passed over and why.
        """
        for step in sorted(self._steps(), reverse=True):
            folder = self._place(step)
            manifest, problem = read_sealed(folder / MANIFEST)
            problem = problem or damaged_file(folder, manifest["files"])
            if not problem and manifest["step"] == step:
                return Checkpoint(step, folder, manifest["facts"])
            on_broken(f"checkpoint {folder} is altered ({problem or 'it is of another step'}) and is passed over")
        return None

    def write(self, step: int, fill: Callable[[Path], None], facts: dict[str, Any]) -> Checkpoint:
        """Let `fill` write the files into a folder aside, add the manifest, and rename it into its place in one step.

        It is on the disk when this returns. A checkpoint of the same step is replaced. Raises `PipelineError` when
        the disk is full; then, as with any other error, the older checkpoints are as they were.
        """
        self._sweep()
        final, aside = self._place(step), self._aside(step)
        try:
            aside.mkdir(parents=True)
            fill(aside)
            _sync(aside)
            write_sealed(aside / MANIFEST, {"step": step, "facts": facts, "files": list_files(aside)})
            _sync_folder(aside)
            if os.path.lexists(final):
                final.rename(self._aside(step))
            aside.rename(final)
            _sync_folder(self.folder)
        except Exception as error:
            if is_disk_full(error) or _is_nearly_full(self.folder):
                told = disk_full_sentence(str(self.folder))
                raise PipelineError(f"the checkpoint of step {step} was not written: {told}") from error
            raise
        finally:
            self._sweep()
        return Checkpoint(step, final, facts)

    def keep(self, *steps: int) -> None:
        """Remove every checkpoint but those of `steps`: out of its place in one step, then from the disk."""
        for step in self._steps():
            if step not in steps:
                self._place(step).rename(self._aside(step))
        self._sweep()

    def _steps(self) -> list[int]:
        return [int(match[1]) for path in self.folder.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]

    def _place(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def _aside(self, step: int) -> Path:
        return self.folder / f".checkpoint-{step}.{uuid.uuid4().hex[:8]}"

    def _sweep(self) -> None:
        for left in self.folder.glob(".checkpoint-*"):
            discard(left)


def _sync(folder: Path) -> None:
    """Wait until the files below a folder, and the folders' entries, are on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    entries = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def _is_nearly_full(folder: Path) -> bool:
    """Libraries that write for themselves, such as torch, do not say why they could not."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < NEARLY_FULL
