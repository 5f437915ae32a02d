"""Whatever stands in a place of the store's own: a run sets it aside, tells it in one sentence and goes on."""

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.aside import make_folder, make_way
from ernie_pipeline.store.history import builds
from ernie_pipeline.store.lock import holder, is_held, open_lock, unless_held
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.row_cache import KeptRows, open_rows
from ernie_pipeline_tests.staleness.chains import chain_of, constant, tree, walk

F = "{fingerprint}"
FOLDERS = (".locks", ".builds", "raw_nemotron", ".unfinished", ".unfinished/raw_nemotron")
FOLDERS_AND_OWN = (*FOLDERS, f".unfinished/raw_nemotron/{F}")
FILES = (f".locks/raw_nemotron-{F}.lock", f".locks/raw_nemotron-{F}.owner", ".builds/raw_nemotron.jsonl")


def a_file(place: Path) -> None:
    place.write_bytes(b"\xffgarbage")


def a_folder(place: Path) -> None:
    place.mkdir()
    (place / "garbage").write_text("kept")


def a_dangling_link(place: Path) -> None:
    place.symlink_to("nowhere")


def a_pipe(place: Path) -> None:
    os.mkfifo(place)


def a_link_to_another_file(place: Path) -> None:
    other = place.parent / "other"
    other.write_text("somebody's")
    place.symlink_to(other)


WRONG = [
    *((place, put) for place in FOLDERS_AND_OWN for put in (a_file, a_dangling_link, a_pipe)),
    *((place, put) for place in FILES for put in (a_folder, a_dangling_link, a_pipe, a_link_to_another_file)),
]


@pytest.mark.parametrize(("name", "put"), WRONG, ids=lambda case: getattr(case, "__name__", str(case)))
def test_what_stands_in_a_place_is_set_aside_told_and_the_build_goes_on(
    store: ArtifactStore, name: str, put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = chain_of(store).provenance("raw_nemotron").fingerprint
    place = store.root / name.replace(F, fingerprint)
    place.parent.mkdir(parents=True)
    put(place)

    before = tree(store.root) if put not in (a_pipe, a_dangling_link, a_link_to_another_file) else None
    assert builds(store, "raw_nemotron") == []
    assert store.find("raw_nemotron", fingerprint) == (None, "not built yet")
    assert holder(store.root, "raw_nemotron", fingerprint) == ""
    assert before is None or tree(store.root) == before  # to look writes nothing

    with caplog.at_level(logging.WARNING):
        assert not chain_of(store).reuse_or_build("raw_nemotron", constant).reused
    assert chain_of(store).reuse_or_build("raw_nemotron", constant).reused
    assert [build["fingerprint"] for build in builds(store, "raw_nemotron")] == [fingerprint]
    [told] = [record.getMessage() for record in caplog.records if record.name == "ernie_pipeline.store.aside"]
    [aside] = [path for path in place.parent.iterdir() if ".aside-" in path.name]
    assert told.startswith(f"{place} was not ")
    assert told.endswith(f"that can be used; it is set aside as {aside.name}, and made anew")
    if put is a_file:
        assert aside.read_bytes() == b"\xffgarbage"
    elif put is a_folder:
        assert (aside / "garbage").read_text() == "kept"


@pytest.mark.parametrize("name", [".runs", ".runs/run1", ".runs/run1/source"])
@pytest.mark.parametrize("put", [a_file, a_folder, a_dangling_link, a_pipe])
def test_pins_are_made_anew(tmp_path: Path, name: str, put: Callable[[Path], None]) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    put(place)
    assert Pins(tmp_path, "run1").pin("source", lambda: "a") == "a"
    assert Pins(tmp_path, "run1").pin("source", lambda: "b") == "a"


@pytest.mark.parametrize("content", [b"", b"a", b"\xff", b"[" * 100_000, b'{"value": "b"}'])
def test_a_pin_that_was_altered_is_made_anew(tmp_path: Path, content: bytes) -> None:
    Pins(tmp_path, "run1").pin("source", lambda: "a")
    (tmp_path / ".runs" / "run1" / "source").write_bytes(content)
    assert Pins(tmp_path, "run1").pin("source", lambda: "c") == "c"


@pytest.mark.parametrize("name", [".rows", ".rows/f00d", ".rows/f00d/about.json", ".rows/f00d/1.jsonl"])
@pytest.mark.parametrize("put", [a_file, a_folder, a_dangling_link, a_pipe])
def test_kept_rows_are_made_anew(tmp_path: Path, name: str, put: Callable[[Path], None]) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    put(place)
    kept = KeptRows(folder=tmp_path / ".rows" / "f00d", about={"of": "this"})
    with open_rows(kept) as rows:
        rows.keep("row", [1])
    with open_rows(kept) as rows:
        assert rows.get("row") == [1]
    assert json.loads((kept.folder / "about.json").read_text()) == {"of": "this"}


@pytest.mark.parametrize("content", [b"[" * 100_000 + b"]" * 100_000, b"[1]", b'"text"', b"{}", b"null"])
def test_what_is_nested_deep_or_of_another_type_is_not_readable(store: ArtifactStore, content: bytes) -> None:
    artifacts = walk(chain_of(store))
    for artifact in artifacts.values():
        (artifact.folder / "manifest.json").write_bytes(content)
    for log in (store.root / ".builds").iterdir():
        log.write_bytes(content + b"\n" + log.read_bytes())
    for name, artifact in artifacts.items():
        fingerprint = artifact.folder.name
        assert store.find(name, fingerprint) == (None, "artifact altered: manifest.json is not readable")
        assert [build["fingerprint"] for build in builds(store, name)] == [fingerprint]


def test_two_at_once_set_one_thing_aside_and_hold_one_lock(tmp_path: Path) -> None:
    for round_ in range(20):
        place = tmp_path / str(round_) / ".locks" / "one.lock"
        place.mkdir(parents=True)
        inodes, start = set[int](), threading.Barrier(4)

        def take(place: Path = place, start: threading.Barrier = start, inodes: set[int] = inodes) -> None:
            start.wait()
            open_lock(place, tmp_path)
            inodes.add(place.stat().st_ino)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(inodes) == 1
        assert len([path for path in place.parent.iterdir() if ".aside-" in path.name]) == 1


def test_nothing_outside_the_store_is_ever_set_aside(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "store" / ".locks", below=tmp_path / "file" / "store")
    with pytest.raises(ValueError, match="subpath"):
        make_way(tmp_path / "elsewhere", below=tmp_path / "store")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_lock_is_seen_as_held_by_whoever_only_reads(tmp_path: Path) -> None:
    with unless_held(tmp_path, "raw_nemotron", "f00d") as held_by:
        assert held_by == ""
        assert holder(tmp_path, "raw_nemotron", "f00d").startswith(f"process {os.getpid()} on ")
    assert not is_held(tmp_path / ".locks" / "raw_nemotron-f00d.lock")
