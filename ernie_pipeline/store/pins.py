"""What a run has seen stays so until it ends: a source or a recipe that changes meanwhile is for the next run."""

import math
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ernie_pipeline.store.aside import is_own_file, make_folder, set_aside_unless
from ernie_pipeline.store.sealed import read_sealed, write_sealed

KEPT_S = 30 * 24 * 3600.0


class Pins:
    """The values that the steps of one run agree on, each made by whichever step asks for it first.

    They are sealed files in `<root>/.runs/<run>/`, because the steps are processes that know nothing of each other.
    """

    def __init__(self, root: Path, run: str):
        self.root, self.folder = root, root / ".runs" / run

    def pin(self, name: str, make: Callable[[], str], valid_s: float = math.inf) -> str:
        """The run's value of `name`, made now if no step has asked for it before, in the last `valid_s` seconds.

        One that is not readable any more is set aside and made anew.
        """
        file = self.folder / name
        if is_own_file(file) and time.time() - file.stat().st_mtime > valid_s:
            file.unlink(missing_ok=True)
        if (pinned := _value(file)) is not None:
            return pinned
        make_folder(self.folder, below=self.root)
        _sweep(self.folder.parent)
        written = file.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
        try:
            write_sealed(written, {"value": (made := make())})
            set_aside_unless(file, lambda place: _value(place) is not None, "a value of this run")
            with suppress(FileExistsError):  # another step was faster
                os.link(written, file)  # unlike a rename it leaves what stands there
        finally:
            written.unlink(missing_ok=True)
        pinned = _value(file)
        return made if pinned is None else pinned


def _value(file: Path) -> str | None:
    values, problem = read_sealed(file)
    value = None if problem else values.get("value")
    return value if isinstance(value, str) else None


def _sweep(runs: Path) -> None:
    """Forget runs of long ago, and nothing that was set aside."""
    for folder in runs.glob("[!.]*"):
        try:
            if time.time() - folder.stat().st_mtime > KEPT_S:
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()
        except OSError:  # another run sweeps too
            continue
