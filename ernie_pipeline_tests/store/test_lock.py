"""Two processes that want the same artifact: real ones, which wait, reuse, and are killed."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.lock import holder, sole_builder, unless_held
from ernie_pipeline_tests.staleness.chains import chain_of

BUILDER = """
import signal, sys
from pathlib import Path
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline_tests.staleness.chains import chain_of, constant

signal.alarm(60)  # a test that fails leaves no process behind

def write(work, out):
    print("building", flush=True)
    sys.stdin.readline()
    constant(work, out)

chain = chain_of(ArtifactStore(Path(sys.argv[1])), nemotron_source=sys.argv[2])
artifact = chain.reuse_or_build("raw_nemotron", write, on_wait=lambda line: print(line, flush=True))
print("reused" if artifact.reused else "built", flush=True)
"""

Builder = subprocess.Popen[str]
Start = Callable[..., Builder]


@pytest.fixture
def start(store: ArtifactStore) -> Iterator[Start]:
    """Start a process that builds raw_nemotron from a version of the source: it says what it does, a line each."""
    started: list[Builder] = []

    def start_one(source: str = "v1") -> Builder:
        command = [sys.executable, "-c", BUILDER, str(store.root), source]
        root = Path(__file__).parents[2]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def heard(process: Builder) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: Builder) -> str:
    """Let the build end; what the process says then."""
    return process.communicate("go on\n")[0].strip()


def fingerprint(store: ArtifactStore, source: str = "v1") -> str:
    return chain_of(store, nemotron_source=source).provenance("raw_nemotron").fingerprint


def test_one_builds_and_the_other_waits_is_told_for_whom_and_reuses(store: ArtifactStore, start: Start) -> None:
    first = start()
    assert heard(first) == "building"
    second = start()
    line = heard(second)
    who = rf"process {first.pid} on \S+ since \d\d:\d\d:\d\d"
    assert re.fullmatch(
        f"raw_nemotron {fingerprint(store)} is being built by {who}; waiting for it, to reuse what it makes", line
    )
    assert re.fullmatch(who, holder(store.root, "raw_nemotron", fingerprint(store)))
    assert finish(first) == "built"
    assert second.communicate(timeout=30)[0].strip() == "reused"


def test_a_killed_builder_lets_the_waiting_one_build(store: ArtifactStore, start: Start) -> None:
    first = start()
    assert heard(first) == "building"
    second = start()
    assert "waiting" in heard(second)
    first.kill()
    assert heard(second) == "building"
    assert finish(second) == "built"
    assert [path.name for path in (store.root / "raw_nemotron").iterdir()] == [fingerprint(store)]


def test_builders_of_different_artifacts_do_not_wait_for_each_other(store: ArtifactStore, start: Start) -> None:
    first, second = start("v1"), start("v2")
    assert (heard(first), heard(second)) == ("building", "building")
    assert (finish(second), finish(first)) == ("built", "built")
    assert store.fingerprints("raw_nemotron") == sorted([fingerprint(store, "v1"), fingerprint(store, "v2")])


def test_a_held_lock_is_told_and_not_waited_for(store: ArtifactStore, start: Start) -> None:
    process = start()
    assert heard(process) == "building"
    key = (store.root, "raw_nemotron", fingerprint(store))
    with unless_held(*key) as held_by:
        assert held_by.startswith(f"process {process.pid} on ")
    assert finish(process) == "built"
    with unless_held(*key) as held_by:
        assert held_by == ""
    assert holder(*key) == ""


def test_who_asks_for_the_holder_leaves_no_trace(tmp_path: Path) -> None:
    assert holder(tmp_path, "raw_nemotron", "f00d") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_builder_that_fails_lets_go(tmp_path: Path) -> None:
    def fail() -> None:
        with sole_builder(tmp_path, "raw_nemotron", "f00d", pytest.fail):
            raise ValueError("in the middle")

    for _ in range(2):
        with pytest.raises(ValueError, match="in the middle"):
            fail()
    assert holder(tmp_path, "raw_nemotron", "f00d") == ""
