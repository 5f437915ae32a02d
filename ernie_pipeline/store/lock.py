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

    `on_wait` is told once who holds it. The kernel lets go of a dead owner's lock (flock), whatever killed it, so there
    is none to clean up. The lock files stay, some bytes each: to unlink a lock that others wait for would split them.
    """
    folder = root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / f"{stage}-{fingerprint}.owner"
    lock = FileLock(folder / f"{stage}-{fingerprint}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait(f"{stage} {fingerprint} is being built by {_told(owner)}; waiting for it, to reuse what it makes")
        lock.acquire(poll_interval=POLL_S)
    try:
        owner.write_text(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%H:%M:%S}"})
        )
        yield
    finally:
        lock.release()


def _told(owner: Path) -> str:
    try:
        who = json.loads(owner.read_text())
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError):  # it has not yet said who it is
        return "another process"
