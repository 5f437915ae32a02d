import json
import subprocess
import sys
from pathlib import Path

from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.history import builds
from ernie_pipeline_tests.staleness.chains import chain_of, constant, walk


def log_of(store: ArtifactStore) -> Path:
    return store.root / ".builds" / "raw_nemotron.jsonl"


def build(store: ArtifactStore, source: str) -> str:
    """Its fingerprint."""
    artifact = chain_of(store, nemotron_source=source).reuse_or_build("raw_nemotron", constant)
    return str(artifact.manifest["fingerprint"])


def known(store: ArtifactStore) -> list[str]:
    return [entry["fingerprint"] for entry in builds(store, "raw_nemotron")]


def test_a_build_is_known_once_and_still_when_its_artifact_is_gone(store: ArtifactStore) -> None:
    fingerprints = [build(store, "v1"), build(store, "v2")]
    before = builds(store, "raw_nemotron")
    assert known(store) == fingerprints  # oldest first, each once, though it is in its manifest too
    for fingerprint in fingerprints:
        store.remove("raw_nemotron", fingerprint)
    assert builds(store, "raw_nemotron") == before
    assert before[0]["inputs"] == {"nemotron_source": "v1"}


def test_a_reused_artifact_is_no_build(store: ArtifactStore) -> None:
    build(store, "v1")
    before = log_of(store).read_bytes()
    build(store, "v1")
    assert log_of(store).read_bytes() == before


def test_an_artifact_that_was_built_again_is_two_builds(store: ArtifactStore) -> None:
    fingerprint = build(store, "v1")
    store.remove("raw_nemotron", fingerprint)
    build(store, "v1")
    assert known(store) == [fingerprint] * 2


def test_without_the_log_what_stands_in_the_store_is_known(store: ArtifactStore) -> None:
    walk(chain_of(store))
    before = builds(store, "math_split")
    for file in (store.root / ".builds").iterdir():
        file.unlink()
    assert builds(store, "math_split") == before


def test_a_line_that_a_crash_cut_off_is_passed_over_and_takes_no_other_with_it(store: ArtifactStore) -> None:
    first, second = build(store, "v1"), build(store, "v2")
    store.remove("raw_nemotron", second)
    log_of(store).write_bytes(log_of(store).read_bytes()[:-40])
    assert known(store) == [first]
    third = build(store, "v3")
    store.remove("raw_nemotron", third)
    assert known(store) == [first, third]


def test_altered_lines_and_manifests_are_passed_over(store: ArtifactStore) -> None:
    first, second = build(store, "v1"), build(store, "v2")
    lines = log_of(store).read_bytes()
    other = json.dumps(json.loads(lines.splitlines()[0]) | {"inputs": []}).encode()
    log_of(store).write_bytes(b"\xff\xfe\n[]\n{}\n\n" + other + b"\n" + lines)
    assert known(store) == [first, second]
    log_of(store).unlink()
    for content in (b"\xff\xfe", b"[]", b'{"fingerprint": []}', b""):
        (store.folder("raw_nemotron", second) / "manifest.json").write_bytes(content)
        assert known(store) == [first]


APPEND = """
import sys
from pathlib import Path
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.history import remember
store, who = ArtifactStore(Path(sys.argv[1])), sys.argv[2]
for number in range(200):
    # longer than what Python's files and the kernel's pages hold at once
    remember(store, {"stage": "raw_nemotron", "fingerprint": f"{who}-{number}", "declared_version": "", "inputs": {},
                     "recipe": {"text": who * 20_000}, "modules": {}, "libraries": {}, "data_version": "",
                     "seconds": 1.0, "built": "2026"})
"""


def test_lines_of_processes_that_append_at_once_stay_whole(store: ArtifactStore) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, str(store.root), who]) for who in "ab"]
    assert [process.wait() for process in writers] == [0, 0]
    assert sorted(known(store)) == sorted(f"{who}-{number}" for who in "ab" for number in range(200))
