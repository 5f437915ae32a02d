"""How much there is on the disk, and since when, while others may be writing and removing there."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path


def size_of(path: Path) -> int:
    """In bytes, of a file, or of all files in a folder; what vanishes meanwhile counts nothing."""
    return sum(found.st_size for found in _stats(path) if not stat.S_ISDIR(found.st_mode))


def last_change(path: Path) -> float:
    """Of a file, or of a folder and all that is in it, in seconds since the epoch."""
    return max((found.st_mtime for found in _stats(path)), default=0.0)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of what stands there and all that is below it; what vanishes meanwhile is passed over."""
    for place in [path, *(Path(folder, name) for folder, *names in os.walk(path) for name in chain(*names))]:
        with suppress(OSError):
            yield place.lstat()
