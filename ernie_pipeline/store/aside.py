"""A place that is not what it should be does not stop anything: it is set aside, told, and made anew.

What is kept beside the artifacts (locks, histories, pins, kept rows, unfinished builds) is for this package's own use,
in places that it chooses. Where something else stands there, a file for a folder or a link that leads nowhere, whoever
is about to write there renames it, `.<name>.aside-<time>-<4 hex digits>` beside it, and never removes it. Who only
reads takes it for nothing.
"""

import fcntl
import logging
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

log = logging.getLogger(__name__)
"""Where each thing that was set aside is told, in a sentence; without a handler, Python prints it on stderr."""


def make_folder(folder: Path, below: Path) -> Path:
    """Make the folder and those above it; what stands in the place of one of them, below `below`, is set aside."""
    clear_way(folder, below)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_way(folder: Path, below: Path) -> None:
    """Set aside what stands in the place of a folder, or of one above it below `below`, and is none; make nothing."""
    for place in reversed([folder, *folder.parents][: len(folder.relative_to(below).parts)]):
        set_aside_unless(place, is_folder, "a folder")


def make_way(file: Path, below: Path) -> Path:
    """Make the folder of a file, and set aside what stands in the file's own place and is none."""
    make_folder(file.parent, below)
    set_aside_unless(file, is_own_file, "a file")
    return file


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one; one that cannot be looked at is none."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def is_own_file(path: Path) -> bool:
    """Whether it is a file, and no link to one, which may be anybody's."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def set_aside_unless(place: Path, fits: Callable[[Path], bool], wanted: str) -> None:
    """Rename what stands there, and tell it, unless there is nothing or it `fits`; `wanted` is what fits, in words."""
    if not os.path.lexists(place) or fits(place):
        return
    with alone_in(place.parent):
        if not os.path.lexists(place) or fits(place):
            return  # another process was faster, and what stands there now is its
        aside = place.with_name(
            f".{place.name.lstrip('.')}.aside-{datetime.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:4]}"
        )
        place.rename(aside)
    log.warning("%s was not %s that can be used; it is set aside as %s, and made anew", place, wanted, aside.name)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else who asks for this folder is in here meanwhile, where its file system has locks of folders.

    The kernel lets go of a dead process's. Makes no file, and needs no right to write.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
