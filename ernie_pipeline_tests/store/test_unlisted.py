"""A sealed folder holds what its manifest lists, and nothing else."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.housekeeping.artifacts import verify
from ernie_pipeline.store.quantized_base import damage
from ernie_pipeline_tests.staleness.chains import chain_of, constant
from ernie_pipeline_tests.store.bases import quantized_base


def add_file(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"pickled")


def add_file_below(folder: Path) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "sub" / "deep" / "modeling.py").write_text("import os")


def add_hidden(folder: Path) -> None:
    (folder / ".hidden").write_text("")


def add_link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")


def add_link_to_folder(folder: Path) -> None:
    (folder / "link").symlink_to("/etc")


def add_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def add_folder_named_harmless(folder: Path) -> None:
    (folder / ".DS_Store").mkdir()
    (folder / ".DS_Store" / "code.py").write_text("")


def add_link_named_harmless(folder: Path) -> None:
    (folder / "._x").symlink_to("/etc/passwd")


def add_name_that_is_no_text(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n")).write_text("")


EXTRA = {
    add_file: "adapter_model.bin is not in its manifest",
    add_file_below: "sub/deep/modeling.py is not in its manifest",
    add_hidden: ".hidden is not in its manifest",
    add_link: "link is a link",
    add_link_to_folder: "link is a link",
    add_pipe: "pipe is not in its manifest",
    add_folder_named_harmless: ".DS_Store/code.py is not in its manifest",
    add_link_named_harmless: "._x is a link",
    add_name_that_is_no_text: r"'\udcff\n' is not in its manifest",
}


@pytest.mark.parametrize(("add", "problem"), EXTRA.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_what_is_extra_is_noticed_and_built_anew_without(
    store: ArtifactStore, add: Callable[[Path], None], problem: str
) -> None:
    folder = chain_of(store).reuse_or_build("raw_nemotron", constant).folder
    add(folder)
    assert store.find("raw_nemotron", folder.name) == (None, f"artifact altered: {problem}")
    assert [found.reason for found in verify(store)] == [f"artifact altered: {problem}"]
    built = chain_of(store).reuse_or_build("raw_nemotron", constant)
    assert (built.reused, built.note) == (False, f"artifact altered: {problem}")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "output.json"]


@pytest.mark.parametrize(("add", "problem"), EXTRA.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_so_it_is_in_a_quantized_base(tmp_path: Path, add: Callable[[Path], None], problem: str) -> None:
    place = quantized_base(tmp_path, "sha256:1")
    assert damage(place) == ""
    add(place)
    assert damage(place) == problem


def test_a_quantized_base_in_another_one_s_place_is_noticed(tmp_path: Path) -> None:
    first, second = quantized_base(tmp_path, "sha256:1"), quantized_base(tmp_path, "sha256:2")
    first.rename(tmp_path / "away")
    second.rename(first)
    assert damage(first) == "base.json is that of another one"


def test_a_listed_file_that_became_a_link_to_the_same_bytes_is_noticed(store: ArtifactStore, tmp_path: Path) -> None:
    folder = chain_of(store).reuse_or_build("raw_nemotron", constant).folder
    (folder / "output.json").rename(tmp_path / "moved")
    (folder / "output.json").symlink_to(tmp_path / "moved")
    assert store.find("raw_nemotron", folder.name) == (None, "artifact altered: output.json is a link")


def test_what_file_browsers_and_network_drives_leave_alters_nothing(store: ArtifactStore) -> None:
    folder = chain_of(store).reuse_or_build("raw_nemotron", constant).folder
    for name in (".DS_Store", "._output.json", "Thumbs.db", "desktop.ini", ".directory", ".nfs00000000012b", "e/d"):
        place = folder / name
        place.mkdir(parents=True) if name == "e/d" else place.write_bytes(b"1")
    assert chain_of(store).reuse_or_build("raw_nemotron", constant).reused


def test_a_stage_that_writes_what_no_manifest_can_list_is_told_so(store: ArtifactStore) -> None:
    def write(work: object, out: Path) -> None:
        (out / "link").symlink_to("/etc/passwd")

    with pytest.raises(RuntimeError, match="raw_nemotron writes what no manifest can list: link is a link"):
        chain_of(store).reuse_or_build("raw_nemotron", write)


def test_a_socket_is_no_file(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chain_of(store).reuse_or_build("raw_nemotron", constant).folder
    monkeypatch.chdir(folder)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert store.find("raw_nemotron", folder.name)[1] == "artifact altered: socket is not in its manifest"
