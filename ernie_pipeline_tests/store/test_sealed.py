"""A folder's manifest tells any change: of a file, of a file's being there, and of itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.store.sealed import (
    Files,
    damaged_file,
    discard,
    list_files,
    read_sealed,
    remove_folder,
    temporary_folders,
    temporary_place,
    write_sealed,
    write_sealed_folder,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    (place / "deep").mkdir(parents=True)
    (place / "a.bin").write_bytes(b"1234")
    (place / "deep" / "b.bin").write_bytes(b"")
    return place


def altered(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"1235")


def longer(folder: Path) -> None:
    (folder / "deep" / "b.bin").write_bytes(b"5")


def lost(folder: Path) -> None:
    (folder / "a.bin").unlink()


def replaced_by_a_folder(folder: Path) -> None:
    (folder / "a.bin").unlink()
    (folder / "a.bin").mkdir()


CHANGES = {altered: "a.bin", longer: "deep/b.bin", lost: "a.bin is missing", replaced_by_a_folder: "a.bin is missing"}


@pytest.mark.parametrize(("change", "problem"), CHANGES.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_a_file_that_is_not_as_listed_is_noticed(folder: Path, change: Callable[[Path], None], problem: str) -> None:
    files = list_files(folder)
    assert sorted(files) == ["a.bin", "deep/b.bin"]
    assert damaged_file(folder, files) == ""
    change(folder)
    assert damaged_file(folder, files) == problem


def test_every_changed_or_lost_byte_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    written = write_sealed(file, {"step": 3, "facts": {"é": [1.5, None]}})
    assert read_sealed(file) == (written, "")
    content = file.read_bytes()
    for place in range(len(content)):
        for other in (content[:place] + content[place + 1 :], content[:place] + b"7" + content[place + 1 :]):
            file.write_bytes(other)
            if other != content:
                assert read_sealed(file)[0] == {}, other


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"null", b'"text"', b"\xff", b'{"seal": 1}'])
def test_what_is_no_sealed_file_is_noticed_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    values, problem = read_sealed(tmp_path / "manifest.json")
    assert values == {}
    assert problem.startswith("manifest.json")


def test_one_that_is_not_there_or_is_a_folder_is_noticed(tmp_path: Path) -> None:
    assert read_sealed(tmp_path / "manifest.json") == ({}, "manifest.json is missing")
    assert read_sealed(tmp_path) == ({}, f"{tmp_path.name} is not readable")


def test_the_same_values_in_another_order_are_the_same_file(tmp_path: Path) -> None:
    for name, values in (("one", {"a": 1, "b": 2}), ("two", {"b": 2, "a": 1})):
        write_sealed(tmp_path / name, values)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "seal" in json.loads((tmp_path / "one").read_text())


def test_discarding_a_link_leaves_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for path in (tmp_path / "link", tmp_path / "none", folder / "deep"):
        discard(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
    assert [path.name for path in folder.iterdir()] == ["a.bin"]


def write_one(final: Path, content: bytes = b"1", durable: bool = False) -> None:
    def fill(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.bin").write_bytes(content)

    def values(files: Files) -> dict[str, int]:
        return {"bytes": sum(entry["size"] for entry in files.values())}

    write_sealed_folder(final, "made.json", fill, values, what="the folder was not written", durable=durable)


@pytest.mark.parametrize("durable", [False, True])
def test_a_written_folder_is_listed_and_sealed_and_replaces_what_stood_there(tmp_path: Path, durable: bool) -> None:
    final = tmp_path / "new" / "one"
    for content in (b"1", b"22"):
        write_one(final, content, durable)
        manifest, problem = read_sealed(final / "made.json")
        assert (manifest["bytes"], problem) == (len(content), "")
        assert list(manifest["files"]) == ["deep/a.bin"]
        assert damaged_file(final, manifest["files"], besides=["made.json"]) == ""
        assert damaged_file(final, manifest["files"]) == "made.json is not in its manifest"
    assert [path.name for path in final.parent.iterdir()] == ["one"]


def test_a_file_that_stands_in_the_folder_s_place_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("no folder")
    write_one(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one" / "made.json").is_file()


@pytest.mark.parametrize("error", [ValueError("in the middle"), KeyboardInterrupt()])
def test_an_error_in_between_leaves_what_stood_there_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    def values(files: Files) -> dict[str, int]:
        assert list(tmp_path.glob(".one.*/a.bin")), "it is written beside its place"
        raise error

    write_one(tmp_path / "one")
    with pytest.raises(type(error)):
        write_sealed_folder(tmp_path / "one", "made.json", lambda f: (f / "a.bin").touch(), values, what="it failed")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert read_sealed(tmp_path / "one" / "made.json")[1] == ""


def test_what_killed_writers_left_goes_with_the_next_writing_and_nobody_else_s_does(tmp_path: Path) -> None:
    left, others = temporary_place(tmp_path / "one"), temporary_place(tmp_path / "one.two")
    for folder in (left, others, tmp_path / ".one.mine"):
        folder.mkdir()
    assert temporary_folders(tmp_path) == {"one": [left], "one.two": [others]}
    write_one(tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"one", others.name, ".one.mine"}
    remove_folder(tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {others.name, ".one.mine"}
