"""The SHA-256 of large files, remembered while they are not touched: a model's weights take minutes to read.

Whether a file was touched is known by the time of its inode's last change, which no program can set back. What that
misses is shut out: a second write to a page of a memory map, which leaves no trace while the first is not on the disk
(so the file is synchronised before it is read); tmpfs, where it never does, and file systems that have another
machine's clock (so few are trusted); and a crash, which may keep a content and lose its time.
"""

import hashlib
import os
import time
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import TypedDict

from ernie_pipeline.store.hashing.file_hash import digest_of
from ernie_pipeline.store.sealed import read_sealed
from ernie_pipeline.store.user_cache import remember, users_cache

SMALL = 2**20
"""Bytes below which reading a file costs as little as remembering it."""
SETTLED_S = 2.0
"""A file that was changed less than this before it was read may change again within the same tick of its clock (ext3's
is a second). git has the same case: https://git-scm.com/docs/racy-git."""
TRUSTED = frozenset({"ext4", "xfs"})
"""File systems of this machine's own disks, by their names in /proc/self/mountinfo (proc(5))."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Where the kernel tells what no two of its starts share."""


class FileState(TypedDict):
    """What is the same for as long as a file is not touched; times in nanoseconds."""

    boot: str
    device: int
    inode: int
    size: int
    changed_ns: int
    inode_changed_ns: int


def remembered_sha256(file: Path, cache: Path | None = None) -> str:
    """The hash of the file's bytes in hex digits: as it was read before, if the file was not touched since.

    Untouched: path, device, inode, size, time of the last change and of the last change of its inode are the same, and
    the machine was not started anew. `cache` is a folder, by default one in the user's cache folder; where it cannot be
    read or written, or what is in it is damaged, the file is read. Raises `OSError` when the file cannot be read.
    """
    path = hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:32]
    entry = (cache or users_cache() / "file_hashes") / f"{path}.json"
    with file.open("rb") as stream:
        state = _state(stream)
        if state["size"] < SMALL or not state["boot"] or _file_system(state["device"]) not in TRUSTED:
            return digest_of(stream)
        known, problem = read_sealed(entry)
        if not problem and known.get("state") == state and isinstance(found := known.get("sha256"), str):
            return found
        return _read_and_remember(stream, entry, str(file.absolute()))


def _read_and_remember(stream: BufferedReader, entry: Path, path: str) -> str:
    synchronised = _synchronise(stream)
    start, state = time.time_ns(), _state(stream)
    found = digest_of(stream)
    settled = start - max(state["changed_ns"], state["inode_changed_ns"]) >= SETTLED_S * 1e9
    if synchronised and settled and _state(stream) == state:
        remember(entry, {"path": path, "state": state, "sha256": found})
    return found


def _synchronise(stream: BufferedReader) -> bool:
    """Write what is in memory to the disk; the kernel then notices the next write to each page of a memory map."""
    try:
        os.fsync(stream.fileno())
    except OSError:
        return False
    return True


def _state(stream: BufferedReader) -> FileState:
    """Of the opened file, not of its name, which may by now be another one's."""
    found, boot = os.fstat(stream.fileno()), ""
    with suppress(OSError):
        boot = BOOT_ID.read_text().strip()
    return {
        "boot": boot,
        "device": found.st_dev,
        "inode": found.st_ino,
        "size": found.st_size,
        "changed_ns": found.st_mtime_ns,
        "inode_changed_ns": found.st_ctime_ns,
    }


def _file_system(device: int) -> str:
    """The name of the kind that is mounted from the device, or "" where that cannot be found out."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            place, _, mounted = line.partition(" - ")
            if place.split()[2] == number:
                return mounted.split()[0]
    return ""
