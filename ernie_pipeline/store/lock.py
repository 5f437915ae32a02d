"""One builder per fingerprint at a time, across processes: the others wait, then reuse what it made."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

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
    """Who holds the lock of one artifact now, or "". Makes no file."""
    if not _path(root, stage, fingerprint).is_file():
        return ""
    lock, owner = _files(root, stage, fingerprint)
    try:
        with lock.acquire(blocking=False):
            return ""
    except Timeout:
        return _who(owner)


def _path(root: Path, stage: str, fingerprint: str) -> Path:
    return root / ".locks" / f"{stage}-{fingerprint}.lock"


def _files(root: Path, stage: str, fingerprint: str) -> tuple[FileLock, Path]:
    """The lock, and the file that says who holds it."""
    path = _path(root, stage, fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path), path.with_suffix(".owner")


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
        who = json.loads(owner.read_text())
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not yet said who it is
        return "another process"
