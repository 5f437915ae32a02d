"""The training's checkpoints on disk: each is complete or not there, whatever ended the process that wrote it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.store.sealed import (
    Files,
    damaged_file,
    read_sealed,
    remove_folder,
    remove_temporary,
    temporary_folders,
    write_sealed_folder,
)

MANIFEST = "checkpoint.json"
NAME = re.compile(r"checkpoint-([0-9]+)")

Facts = dict[str, Any]
"""What is kept with a checkpoint, of JSON's types."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps, in `folder`, and the `facts` (values of JSON's types) kept with it."""

    step: int
    folder: Path
    facts: Facts


class Checkpoints:
    """`<folder>/checkpoint-<step>/`, each with a manifest of its files' sizes and hashes.

    Only one process at a time may write there.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def newest(self, on_broken: Callable[[str], None]) -> Checkpoint | None:
        """The intact checkpoint of the highest step, None if there is none; every file of it is read.

        `on_broken` is called with a sentence for each one that is passed over, which says why.
        """
        for step in sorted(self._steps(), reverse=True):
            folder = self._place(step)
            manifest, problem = read_sealed(folder / MANIFEST)
            problem = problem or damaged_file(folder, manifest["files"], besides=[MANIFEST])
            if not problem and manifest["step"] == step:
                return Checkpoint(step, folder, manifest["facts"])
            on_broken(f"checkpoint {folder} is altered ({problem or 'it is of another step'}) and is passed over")
        return None

    def write(self, step: int, fill: Callable[[Path], None], facts: Facts) -> Checkpoint:
        """Let `fill` write the files of the checkpoint, which replaces one of the same step; it is there in one step.

        It is on the disk when this returns. Raises `PipelineError` when the disk is full; then, as with any other
        error, the older checkpoints are as they were.
        """
        self._remove_temporary()
        place, what = self._place(step), f"the checkpoint of step {step} was not written"

        def values(_: Files) -> Facts:
            return {"step": step, "facts": facts}

        write_sealed_folder(place, MANIFEST, fill, values, what=what, durable=True)
        return Checkpoint(step, place, facts)

    def keep(self, *steps: int) -> None:
        """Remove every checkpoint but those of `steps`: out of its place in one step, then from the disk."""
        for step in self._steps():
            if step not in steps:
                remove_folder(self._place(step))
        self._remove_temporary()

    def _steps(self) -> list[int]:
        return [int(match[1]) for path in self.folder.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]

    def _place(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def _remove_temporary(self) -> None:
        """Of all steps: what a killed training left stands beside a checkpoint that may never be written again."""
        for name in temporary_folders(self.folder):
            if NAME.fullmatch(name):
                remove_temporary(self.folder / name)
