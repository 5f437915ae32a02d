"""Machines: each a cache folder of its own before one bucket. And a process that builds on one."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ernie_pipeline.store.artifacts import Provenance
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.store import SharedStore
from ernie_pipeline_tests.store.shared.server import Server

KEY = ("stage", "f00d")
OBJECTS = f"store/{KEY[0]}/{KEY[1]}"
BUILDER = """
import signal, sys
from pathlib import Path
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.store import SharedStore
from ernie_pipeline_tests.store.shared.machines import build

signal.alarm(120)  # a test that fails leaves no process behind

def write(out):
    print("building", flush=True)
    sys.stdin.readline()
    (out / "a.txt").write_text(sys.argv[3])

store = SharedStore(Path(sys.argv[1]), Bucket(sys.argv[2]), fetch=True, lease_s=float(sys.argv[4]))
artifact = build(store, write, on_wait=lambda line: print(line, flush=True))
print("reused" if artifact.reused else "built", (artifact.folder / "a.txt").read_text(), flush=True)
"""


def made_from() -> Provenance:
    return Provenance(*KEY, declared_version="1", inputs={}, recipe={})


def write_files(out: Path, text: str = "alpha") -> None:
    """An artifact's files, in two folders."""
    (out / "a.txt").write_text(text)
    (out / "reports").mkdir()
    (out / "reports" / "b.txt").write_text("beta")


def build(store: SharedStore, write: Any = write_files, on_wait: Any = print) -> Any:
    """What a chain does: reuse, or build as the only one and add to the history."""
    found, reason = store.find(*KEY)
    if found:
        return found
    with store.sole_builder(*KEY, on_wait):
        found, reason = store.find(*KEY)
        if found is None:
            with store.carried(*KEY, None):
                found = store.build(made_from(), write, reason)
    return found


def machine(folder: Path, bucket: Bucket, fetch: bool = True) -> SharedStore:
    return SharedStore(folder / "store", bucket, fetch=fetch, lease_s=5)


@contextmanager
def builder(root: Path, bucket: Bucket, text: str, lease_s: float = 30) -> "Iterator[subprocess.Popen[str]]":
    """A process that builds with the cache `root`; it says what it does, and goes on when it hears a line."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", BUILDER, str(root), bucket.address, text, str(lease_s)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[3]) as process:
        try:
            yield process
        finally:
            process.kill()


def put_object(server: Server, address: str, body: bytes = b"") -> None:
    """Write an object as others do, whose names obstore may refuse."""
    request = urllib.request.Request(
        address.replace("s3://", f"{server.url}/"),
        data=body,
        method="PUT",
        headers={"Content-Type": "application/octet-stream"},
    )
    urllib.request.urlopen(request).close()
