"""Artifacts in a bucket: published once, found by other machines, verified, and built again when they are damaged."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.store.artifacts import NOT_BUILT, Provenance
from ernie_pipeline.store.history import builds, remember
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline.store.shared.records import packed, unpacked
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.store.shared.machines import KEY, OBJECTS, build, builder, machine, made_from, write_files
from ernie_pipeline_tests.store.shared.server import Server


def never(out: Path) -> None:
    raise AssertionError("built again")


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def data_objects(bucket: Bucket) -> list[str]:
    return [f"{OBJECTS}/{name}" for name in bucket.list(OBJECTS) if "/" in name]


def test_another_machine_reuses_what_one_has_built(bucket: Bucket, tmp_path: Path) -> None:
    here, there = machine(tmp_path / "here", bucket), machine(tmp_path / "there", bucket)
    assert there.find(*KEY) == (None, NOT_BUILT)
    built = build(here)
    reused = build(there, never)
    assert (built.reused, reused.reused) == (False, True)
    assert reused.manifest == built.manifest
    assert reused.folder == there.folder(*KEY)
    for name in ("a.txt", "reports/b.txt", "manifest.json"):
        assert (reused.folder / name).read_bytes() == (built.folder / name).read_bytes()


def test_a_plan_reads_records_and_downloads_nothing(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    build(machine(tmp_path / "here", bucket))
    looking = machine(tmp_path / "there", bucket, fetch=False)
    server.fail()
    found, _ = looking.find(*KEY)
    assert found
    assert len(server.requests()) == 3  # the bucket's format, the record, a listing
    looking.find(*KEY)
    assert len(server.requests()) == 5
    assert not looking.root.exists()


def test_what_a_plan_asks_of_an_artifact_is_downloaded_then(bucket: Bucket, tmp_path: Path) -> None:
    build(machine(tmp_path / "here", bucket), lambda out: (out / "a.json").write_text("[1]") and None)
    found, _ = machine(tmp_path / "there", bucket, fetch=False).find(*KEY)
    assert found
    assert found.json("a.json") == [1]


def test_a_local_copy_that_was_altered_is_downloaded_again(bucket: Bucket, tmp_path: Path) -> None:
    store = machine(tmp_path, bucket)
    file = build(store).folder / "a.txt"
    file.write_text("omega")
    found, _ = store.find(*KEY)
    assert found
    assert file.read_text() == "alpha"


def torn(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"al")


def altered(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"omega")


def missing(bucket: Bucket, key: str) -> None:
    bucket.delete([key])


DAMAGES = {torn: "a.txt", altered: "a.txt", missing: "a.txt is missing"}


@pytest.mark.parametrize("fetch", [True, False])
@pytest.mark.parametrize("damage", [torn, altered, missing])
def test_a_damaged_object_is_told_the_artifact_built_again_and_replaced(
    bucket: Bucket, tmp_path: Path, damage: object, fetch: bool
) -> None:
    here, there = machine(tmp_path / "here", bucket), machine(tmp_path / "there", bucket)
    first = build(here)
    [key] = [key for key in data_objects(bucket) if key.endswith("a.txt")]
    assert callable(damage)
    damage(bucket, key)
    looking = machine(tmp_path / "looking", bucket, fetch=fetch)
    assert looking.find(*KEY) == (None, f"artifact altered: {DAMAGES[damage]}")
    again = build(there)
    assert (again.reused, again.note) == (False, f"artifact altered: {DAMAGES[damage]}")
    assert again.data_version == first.data_version
    assert looking.find(*KEY)[0]
    assert build(here, never).reused
    assert key not in data_objects(bucket)
    assert len(data_objects(bucket)) == 2


@pytest.mark.parametrize("body", [b"", b"garbage", b"0" * 64 + b"\n{}"])
def test_a_record_that_is_garbage_is_replaced(bucket: Bucket, tmp_path: Path, body: bytes) -> None:
    store = machine(tmp_path, bucket)
    build(store)
    bucket.put(f"{OBJECTS}/manifest.json", body)
    assert store.find(*KEY) == (None, "artifact altered: manifest.json")
    assert build(store).note == "artifact altered: manifest.json"
    assert store.find(*KEY)[0]


def test_a_record_that_names_files_elsewhere_is_altered(bucket: Bucket, tmp_path: Path) -> None:
    store = machine(tmp_path, bucket)
    build(store)
    stored = bucket.get(f"{OBJECTS}/manifest.json")
    assert stored
    values = unpacked(stored.body)
    assert values
    for name in ("../evil", "/evil", "a/../../evil"):
        values["manifest"]["files"] = {name: {"size": 1, "sha256": "0"}}
        bucket.put(f"{OBJECTS}/manifest.json", packed(values))
        assert store.find(*KEY) == (None, "artifact altered: manifest.json")


def test_objects_copied_to_another_bucket_are_verified_by_their_content(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There their ETags may be others."""
    store = machine(tmp_path, bucket)
    write = bucket.put
    monkeypatch.setattr(bucket, "put", lambda key, content: write(key, content) + "another")
    build(store)
    assert machine(tmp_path / "there", bucket, fetch=False).find(*KEY)[0]
    [key] = [key for key in data_objects(bucket) if key.endswith("a.txt")]
    altered(bucket, key)
    assert store.find(*KEY) == (None, "artifact altered: a.txt")


def test_the_first_publisher_wins_and_the_second_takes_what_it_made(bucket: Bucket, tmp_path: Path) -> None:
    """The second builds without waiting, as one whose lease ran out."""
    here, there = machine(tmp_path / "here", bucket), machine(tmp_path / "there", bucket)
    with here.sole_builder(*KEY, print):
        assert here.find(*KEY) == (None, NOT_BUILT)
        bucket.delete([f"leases/{KEY[0]}-{KEY[1]}"])
        first = build(there, lambda out: write_files(out, "first"))
        second = here.build(made_from(), lambda out: write_files(out, "second"))
    assert (first.reused, second.reused) == (False, True)
    assert second.manifest == first.manifest
    assert (second.folder / "a.txt").read_text() == "first"
    assert len(data_objects(bucket)) == 2


def test_a_paused_builder_does_not_overwrite_what_its_successor_published(bucket: Bucket, tmp_path: Path) -> None:
    with builder(tmp_path / "here", bucket, "paused", lease_s=1) as paused:
        assert heard(paused) == "building"
        paused.send_signal(signal.SIGSTOP)
        with builder(tmp_path / "there", bucket, "successor") as successor:
            waits = heard(successor)
            assert waits.startswith(f"stage f00d is being built by process {paused.pid} on ")
            assert heard(successor) == "building"
            out, _ = successor.communicate("go on\n", timeout=90)
        assert out == "built successor\n"
        record = bucket.get(f"{OBJECTS}/manifest.json")
        paused.send_signal(signal.SIGCONT)
        out, _ = paused.communicate("go on\n", timeout=90)
    assert out == "reused successor\n"
    assert bucket.get(f"{OBJECTS}/manifest.json") == record


def test_a_paused_builder_waits_for_a_successor_that_still_builds(bucket: Bucket, tmp_path: Path) -> None:
    with builder(tmp_path / "here", bucket, "paused", lease_s=1) as paused:
        assert heard(paused) == "building"
        paused.send_signal(signal.SIGSTOP)
        with builder(tmp_path / "there", bucket, "successor") as successor:
            heard(successor)
            assert heard(successor) == "building"
            paused.send_signal(signal.SIGCONT)
            assert paused.stdin
            paused.stdin.write("go on\n")
            paused.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                paused.wait(2)
            out, _ = successor.communicate("go on\n", timeout=90)
        assert out == "built successor\n"
        assert paused.communicate(timeout=90)[0] == "reused successor\n"


def test_two_machines_at_once_build_once(bucket: Bucket, tmp_path: Path) -> None:
    with builder(tmp_path / "here", bucket, "here") as here, builder(tmp_path / "there", bucket, "there") as there:
        for process in (here, there):
            assert process.stdin
            process.stdin.write("go on\n")
            process.stdin.flush()  # whichever builds: the other one, which is read first, waits for it
        lines = [process.communicate(timeout=90)[0].splitlines() for process in (here, there)]
    assert sorted(line.partition(" ")[0] for line in (lines[0][-1], lines[1][-1])) == ["built", "reused"]
    assert sum("building" in line for line in lines) == 1


def test_a_build_that_could_not_be_published_is_published_later_and_not_made_again(
    server: Server, address: str, tmp_path: Path
) -> None:
    store = machine(tmp_path, Bucket(address, patience_s=1))
    with pytest.raises(BucketError, match="cannot be reached"):
        build(store, lambda out: write_files(out) or server.fail({"kind": "failing", "times": 10**6}))
    server.fail()
    artifact = build(store, never)
    assert not artifact.reused
    assert machine(tmp_path / "there", store.bucket).find(*KEY)[0]
    shutil.rmtree(store.root)
    assert build(store, never).reused


def test_what_was_deleted_in_the_bucket_is_built_again_though_a_copy_is_here(bucket: Bucket, tmp_path: Path) -> None:
    store = machine(tmp_path, bucket)
    build(store)
    bucket.delete([f"{OBJECTS}/manifest.json"])
    assert store.find(*KEY) == (None, NOT_BUILT)
    assert not build(store).reused


@pytest.mark.parametrize("kind", ["slow", "failing", "torn", "lost", "repeated"])
def test_every_kind_of_fault_is_lived_through(server: Server, bucket: Bucket, tmp_path: Path, kind: str) -> None:
    here, there = machine(tmp_path / "here", bucket), machine(tmp_path / "there", bucket)
    faults = [{"kind": kind, "match": match, "times": 2, "seconds": 0.1} for match in ("PUT", "GET", "DELETE", "POST")]
    server.fail(*faults)
    built = build(here)
    assert not built.reused
    server.fail(*faults)
    assert build(there, never).manifest == built.manifest
    assert any(kind in line for line in server.requests())


def test_history_is_shared_and_read_once(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    here, there = machine(tmp_path / "here", bucket), machine(tmp_path / "there", bucket)
    for number in range(3):
        manifest = {**vars(Provenance(KEY[0], f"{number:04x}", "1", {}, {})), "data_version": "v", "seconds": 1.0}
        remember(here if number else there, {**manifest, "built": f"2026-01-0{number + 1}T00:00:00.000+00:00"})
    bucket.put(f"builds/{KEY[0]}/torn", b"garbage")
    for store in (here, there):
        assert [build["fingerprint"] for build in builds(store, KEY[0])] == ["0000", "0001", "0002"]
    server.fail()
    builds(there, KEY[0])
    assert [line for line in server.requests() if "builds/stage/2026" in line] == []


def test_the_steps_of_a_run_agree_on_whichever_machine(bucket: Bucket, tmp_path: Path) -> None:
    here, there = machine(tmp_path / "here", bucket).pins("run"), machine(tmp_path / "there", bucket).pins("run")
    assert here.pin("recipe", lambda: "first") == "first"
    assert there.pin("recipe", lambda: "second") == "first"
    assert machine(tmp_path / "there", bucket).pins("another").pin("recipe", lambda: "second") == "second"


def test_nothing_of_the_credentials_is_kept_or_told(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    build(machine(tmp_path, bucket))
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and secret in p.read_bytes()]
    for name in bucket.list(""):
        stored = bucket.get(name)
        assert stored
        assert secret not in stored.body


def file(place: Path) -> None:
    place.write_text("x")


def loop(place: Path) -> None:
    place.symlink_to(place.name)


@pytest.mark.parametrize("occupy", [file, loop, os.mkfifo, os.mkdir])
@pytest.mark.parametrize(
    "place",
    ["", "unpublished", "carried", "builds", "builds/stage", "unpublished/stage-f00d", "carried/stage-f00d.token"],
)
def test_a_place_of_the_cache_that_is_occupied_stops_nothing(
    bucket: Bucket, tmp_path: Path, place: str, occupy: Callable[[Path], None]
) -> None:
    store = machine(tmp_path, bucket)
    occupied = store.root / ".shared" / place
    occupied.parent.mkdir(parents=True)
    occupy(occupied)
    built = build(store)
    remember(store, built.manifest)
    assert not built.reused
    assert len(builds(store, KEY[0])) == 1
    assert build(machine(tmp_path / "there", bucket), never).reused


@pytest.mark.parametrize(
    "key", [f"{OBJECTS}/manifest.json", "leases/stage-f00d", "builds/stage/2026-f00d", "unfinished/stage/f00d/4/index"]
)
def test_a_record_that_says_something_else_is_none(bucket: Bucket, tmp_path: Path, key: str) -> None:
    bucket.put(key, packed({"of": "another version"}))
    store = machine(tmp_path, bucket)
    built = build(store)
    remember(store, built.manifest)
    assert len(builds(store, KEY[0])) == 1
    assert build(machine(tmp_path / "there", bucket), never).reused


def test_a_cache_that_is_removed_while_at_work_is_told(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machine(tmp_path, bucket)

    def remove(out: Path) -> None:
        write_files(out)
        shutil.rmtree(store.root)

    with pytest.raises(PipelineError, match="was removed by others while it was being written; run again"):
        build(store, remove)
    monkeypatch.setattr(bucket, "put", lambda key, content: shutil.rmtree(store.root) or content.stat())
    with pytest.raises(PipelineError, match=r"was removed by others from .* run again"):
        build(store)
    monkeypatch.undo()
    assert not build(store).reused


def test_each_bucket_of_a_cache_is_tried_for_conditions(
    server: Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("ERNIE_PIPELINE_CACHE", str(tmp_path))
    for home, tries in ((address, True), (address, False), (f"{address}/other", True)):
        monkeypatch.setenv("ERNIE_PIPELINE_HOME", home)
        server.fail()
        open_store(Settings.from_environment(), for_run=True)
        assert any("/leases/" in request for request in server.requests()) is tries
