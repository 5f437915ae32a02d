"""A remembered hash is the file's own, whatever was done to the file or to what is remembered."""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

import pytest

from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.staleness.stages import SOURCES
from ernie_pipeline.store.hashing import hash_cache
from ernie_pipeline.store.hashing.file_hash import digest_of, sha256_of
from ernie_pipeline.store.hashing.hash_cache import SMALL, TRUSTED, remembered_sha256

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every file is read each time")


def kind_of(folder: Path) -> str:
    return hash_cache._file_system(folder.stat().st_dev)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file, old enough to be trusted, on a file system that is trusted whatever it is."""
    monkeypatch.setattr(hash_cache, "SETTLED_S", 0.05)
    monkeypatch.setattr(hash_cache, "TRUSTED", {kind_of(tmp_path)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(SMALL))
    time.sleep(0.1)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "of hashes"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, whose hashes are real."""
    files: list[str] = []

    def counting(stream: BufferedReader) -> str:
        files.append(stream.name)
        return digest_of(stream)

    monkeypatch.setattr(hash_cache, "digest_of", counting)
    return files


def test_an_untouched_file_is_read_once(file: Path, cache: Path, read: list[str]) -> None:
    assert [remembered_sha256(file, cache) for _ in range(3)] == [sha256_of(file)] * 3
    assert len(read) == 1


def same_size_and_time(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"x")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replaced(file: Path) -> None:
    before, other = file.stat(), file.with_name("other")
    other.write_bytes(b"y" * SMALL)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def longer(file: Path) -> None:
    os.truncate(file, SMALL + 1)


def as_if_by_a_skewed_clock(file: Path) -> None:
    same_size_and_time(file)
    os.utime(file, (0, 0))


@pytest.mark.parametrize("change", [same_size_and_time, replaced, longer, as_if_by_a_skewed_clock])
def test_a_touched_file_is_read_again(file: Path, cache: Path, change: Callable[[Path], None]) -> None:
    before = remembered_sha256(file, cache)
    change(file)
    assert remembered_sha256(file, cache) == sha256_of(file) != before


@pytest.fixture
def mapped(file: Path) -> Iterator[mmap.mmap]:
    """A map of the file, whose first page was written to some time ago."""
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), SMALL) as content:
        content[0] = 1
        time.sleep(0.1)
        yield content


def test_a_write_through_a_map_to_a_page_that_was_not_yet_on_the_disk_is_noticed(
    file: Path, cache: Path, mapped: mmap.mmap
) -> None:
    """Unless the file is synchronised before it is read, the second write to a page does not move its time."""
    if kind_of(file.parent) not in TRUSTED:
        pytest.skip("temporary files are not on a trusted file system")
    before = remembered_sha256(file, cache)
    mapped[1] = 2
    assert remembered_sha256(file, cache) == sha256_of(file) != before


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs at hand")
def test_a_file_in_memory_is_read_each_time(cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the writes to a page of its map, only the first ever moves its time."""
    monkeypatch.setattr(hash_cache, "SETTLED_S", 0.0)
    file = Path(f"/dev/shm/ernie-pipeline-test-{os.getpid()}")
    try:
        file.write_bytes(bytes(SMALL))
        with file.open("r+b") as stream, mmap.mmap(stream.fileno(), SMALL) as content:
            content[0] = 1
            before = remembered_sha256(file, cache)
            content[1] = 2
            assert remembered_sha256(file, cache) == sha256_of(file) != before
    finally:
        file.unlink()
    assert len(read) == 2


def test_after_a_crash_it_is_read_again(
    file: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for boot, reads in (("this", 1), ("this", 1), ("the next", 2), ("", 3), ("", 4)):
        (file.parent / "boot").write_text(f"{boot}\n")
        monkeypatch.setattr(hash_cache, "BOOT_ID", file.parent / "boot")
        remembered_sha256(file, cache)
        assert len(read) == reads


def test_another_file_of_the_same_name_elsewhere_is_another(file: Path, cache: Path) -> None:
    other = file.parent / "other" / file.name
    other.parent.mkdir()
    other.write_bytes(b"z" * SMALL)
    assert remembered_sha256(file, cache) != remembered_sha256(other, cache) == sha256_of(other)


def test_what_was_changed_just_now_is_not_remembered(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again and keep its time stamp."""
    monkeypatch.setattr(hash_cache, "SETTLED_S", 60.0)
    remembered_sha256(file, cache)
    assert not cache.exists()


def test_what_changes_while_it_is_read_is_not_remembered(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_change(stream: BufferedReader) -> str:
        found = digest_of(stream)
        same_size_and_time(file)
        return found

    monkeypatch.setattr(hash_cache, "digest_of", read_and_change)
    remembered_sha256(file, cache)
    assert not cache.exists()


def test_a_small_file_is_read_each_time(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert remembered_sha256(tmp_path / "config.json", cache) == sha256_of(tmp_path / "config.json")
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", None])
def test_a_damaged_entry_is_written_anew(file: Path, cache: Path, read: list[str], content: bytes | None) -> None:
    wanted = remembered_sha256(file, cache)
    [entry] = cache.iterdir()
    entry.write_bytes(entry.read_bytes().replace(wanted[:8].encode(), b"00000000") if content is None else content)
    assert [remembered_sha256(file, cache) for _ in range(2)] == [wanted] * 2
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert remembered_sha256(file, cache) == sha256_of(file)
    monkeypatch.chdir(file.parent)
    assert remembered_sha256(file, Path("~/.cache")) == sha256_of(file)
    assert not Path("~").exists()


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remembered_sha256(tmp_path / "none", cache)


def test_many_at_once_agree_and_leave_one_whole_entry(file: Path, cache: Path, read: list[str]) -> None:
    work = (
        "import sys; from pathlib import Path; from ernie_pipeline.store.hashing import hash_cache\n"
        "hash_cache.SETTLED_S, hash_cache.TRUSTED = 0, {sys.argv[3]}\n"
        "for _ in range(50):\n"
        "    print(hash_cache.remembered_sha256(Path(sys.argv[1]), Path(sys.argv[2])))\n"
        "    [entry.unlink(missing_ok=True) for entry in Path(sys.argv[2]).glob('*.json')]\n"
    )
    command = [sys.executable, "-c", work, str(file), str(cache), kind_of(file.parent)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {line for process in started for line in process.communicate()[0].split()}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert found == {sha256_of(file)}
    assert list(cache.iterdir()) == []
    assert remembered_sha256(file, cache) == remembered_sha256(file, cache) == sha256_of(file)
    assert len(read) == 1


def test_by_default_it_is_in_the_user_s_cache_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    remembered_sha256(file)
    assert len(list((tmp_path / "mine" / "ernie_pipeline" / "file_hashes").iterdir())) == 1


def test_the_chain_reads_the_weights_of_an_untouched_base_model_once(
    file: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".not of the model"))
    (file.parent / "config.json").write_text("{}")
    recipe = parse_recipe({"base_model": {"name": str(file.parent)}}, where="test")
    first, second = (SOURCES["base_model"].version(recipe) for _ in range(2))
    assert read.count(str(file)) == 1
    same_size_and_time(file)
    assert first == second != SOURCES["base_model"].version(recipe)
