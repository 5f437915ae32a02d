"""One builder per fingerprint at a time, across processes: the others wait, then reuse what it made."""

import fcntl
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ernie_pipeline.store.aside import is_own_file, make_way
from ernie_pipeline.store.readable import NOT_READABLE, read_json

POLL_S = 0.25


@contextmanager
def sole_builder(root: Path, stage: str, fingerprint: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the store's lock of one artifact; while another process holds it, wait.

    `on_wait` is called once with who holds it. The kernel lets go of a dead owner's lock (flock), whatever killed it,
    so there is none to clean up. The lock files stay, some bytes each: to unlink a lock that others wait for would
    split them.
    """
    lock, owner = _files(root, stage, fingerprint)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait(f"{stage} {fingerprint} is being built by {_who(owner)}; waiting for it, to reuse what it makes")
        lock.acquire(poll_interval=POLL_S)
    with _held(lock, owner):
        yield


@contextmanager
def unless_held(root: Path, stage: str, fingerprint: str) -> Iterator[str]:
    """Hold the lock of one artifact if that needs no waiting. Yields "", or else who holds it."""
    lock, owner = _files(root, stage, fingerprint)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield _who(owner)
        return
    with _held(lock, owner):
        yield ""


def holder(root: Path, stage: str, fingerprint: str) -> str:
    """Who holds the lock of one artifact now, or "". Makes no file, and needs no right to write."""
    path = _path(root, stage, fingerprint)
    return _who(path.with_suffix(".owner")) if is_held(path) else ""


def open_lock(path: Path, below: Path) -> FileLock:
    """The lock of that path, not yet held; what is no file, in its place or in that of a folder of it, is set aside.

    Whoever may write in its folder may hold it: its file has the rights that the umask leaves, and keeps them.
    """
    make_way(path, below)
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o666))
    return FileLock(path, mode=stat.S_IMODE(path.stat().st_mode))


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of that path now; one that may not be read counts as not held. Makes no file."""
    if not is_own_file(path):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def _path(root: Path, stage: str, fingerprint: str) -> Path:
    return root / ".locks" / f"{stage}-{fingerprint}.lock"


def _files(root: Path, stage: str, fingerprint: str) -> tuple[FileLock, Path]:
    """The lock, and the file that says who holds it."""
    path = _path(root, stage, fingerprint)
    return open_lock(path, root), make_way(path.with_suffix(".owner"), root)


@contextmanager
def _held(lock: FileLock, owner: Path) -> Iterator[None]:
    try:
        owner.write_text(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%H:%M:%S}"})
        )
        yield
    finally:
        lock.release()


def _who(owner: Path) -> str:
    try:
        who = read_json(owner)
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except NOT_READABLE:  # it has not yet said who it is
        return "another process"
