"""What a run has seen stays so until it ends: a source or a recipe that changes meanwhile is for the next run."""

import math
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

KEPT_S = 30 * 24 * 3600.0


class Pins:
    """The values that the steps of one run agree on, each made by whichever step asks for it first.

    They are files in `<root>/.runs/<run>/`, because the steps are processes that know nothing of each other.
    """

    def __init__(self, root: Path, run: str):
        self.folder = root / ".runs" / run

    def pin(self, name: str, make: Callable[[], str], valid_s: float = math.inf) -> str:
        """The run's value of `name`, made now if no step has asked for it before, in the last `valid_s` seconds."""
        file = self.folder / name
        if file.is_file() and time.time() - file.stat().st_mtime > valid_s:
            file.unlink(missing_ok=True)
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            _sweep(self.folder.parent)
            made = file.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
            made.write_text(make(), encoding="utf-8")
            try:
                os.link(made, file)  # unlike a rename it fails where another step was faster
            except FileExistsError:
                pass
            finally:
                made.unlink()
        return file.read_text(encoding="utf-8")


def _sweep(runs: Path) -> None:
    """Forget runs of long ago."""
    for folder in runs.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > KEPT_S:
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()
        except OSError:  # another run sweeps too
            continue
