"""What a quantized base model is named after, and that any change of it is noticed, however often it was read."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.models.spec import base_checkpoint
from ernie_pipeline.recipe.sections import BaseModelRef, Quantization
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stages import asked_base
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.hashing import hash_cache
from ernie_pipeline.store.hashing.file_hash import digest_of, sha256_of
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.quantized_base import FOLDER, FORMAT, LIBRARIES, MANIFEST, damage, key_of, made_of
from ernie_pipeline_tests.staleness.chains import OBSERVED, chain_of, recipe_with
from ernie_pipeline_tests.store.bases import QUANTIZATION, quantized_base


def test_the_key_stays_the_same_and_each_part_of_what_it_is_made_of_counts() -> None:
    made = {"version": "v", "quantization": QUANTIZATION, "format": 1, "libraries": dict.fromkeys(LIBRARIES, "1.0")}
    assert key_of(made) == "b136c2401794c46dfa8d65e717d640f3"
    assert key_of(dict(reversed(made.items()))) == key_of(made)
    other = {"version": "w", "quantization": QUANTIZATION | {"double": False}, "format": 2, "libraries": {}}
    assert len({key_of(made), *(key_of(made | {part: value}) for part, value in other.items())}) == 5


def test_a_library_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_pipeline.store.quantized_base.LIBRARIES", ("filelock", "no-such-library"))
    made = made_of("v", QUANTIZATION)
    assert (made["format"], made["libraries"]["no-such-library"]) == (FORMAT, "")
    assert made["libraries"]["filelock"][0].isdigit()


def test_the_recipe_asks_for_what_a_training_of_it_makes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    grouped = {"training": {"backend": "grouped"}}
    base = base_checkpoint(BaseModelRef(), OBSERVED["base_model"])
    assert asked_base(chain_of(store, recipe_with(**grouped))) == made_of(base.version, Quantization().model_dump())
    assert asked_base(chain_of(store, recipe_with(training={"backend": "peft"}))) is None
    double = asked_base(chain_of(store, recipe_with(**grouped, quantization={"double": False})))
    assert double == made_of(OBSERVED["base_model"], QUANTIZATION | {"double": False})


def test_jobs_keep_them_where_the_store_looks(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "demo", None, "sqlite://")
    assert quantized_base(settings.store, "v").parent == settings.store / FOLDER


def altered(file: Path) -> None:
    """One byte, with the size and the time of the last change as before."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\7")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


CHANGES: dict[Callable[[Path], None], str] = {altered: "", truncated: "", Path.unlink: " is missing"}


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hashes of files of any size are remembered on this file system; the files that were read."""
    kind, read = hash_cache._file_system(tmp_path.stat().st_dev), list[str]()
    monkeypatch.setattr(hash_cache, "TRUSTED", {kind})
    monkeypatch.setattr(hash_cache, "SMALL", 0)
    monkeypatch.setattr(hash_cache, "SETTLED_S", 0.05)
    monkeypatch.setattr(hash_cache, "users_cache", lambda: tmp_path / "cache")

    def reading(stream: object) -> str:
        read.append(Path(stream.name).name)  # type: ignore[attr-defined]
        return digest_of(stream)  # type: ignore[arg-type]

    monkeypatch.setattr(hash_cache, "digest_of", reading)
    return read


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every file is read each time")
@pytest.mark.parametrize("change", CHANGES)
def test_an_untouched_base_is_read_once_and_a_change_is_still_noticed(
    tmp_path: Path, trusted: list[str], change: Callable[[Path], None]
) -> None:
    folder = quantized_base(tmp_path, "v")
    time.sleep(0.1)
    assert [damage(folder, remembered_sha256) for _ in range(3)] == ["", "", ""]
    assert sorted(trusted) == ["layer-000.safetensors", "layer-001.safetensors", "rest.safetensors"]
    time.sleep(0.02)  # more than a tick of the file system's clock
    change(folder / "layer-001.safetensors")
    assert damage(folder, remembered_sha256) == damage(folder) == f"layer-001.safetensors{CHANGES[change]}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every file is read each time")
def test_one_that_was_quantized_anew_in_its_place_is_read_again(tmp_path: Path, trusted: list[str]) -> None:
    folder = quantized_base(tmp_path, "v")
    time.sleep(0.1)
    assert damage(folder, remembered_sha256) == ""
    folder.rename(tmp_path / "away")
    assert damage(quantized_base(tmp_path, "v"), remembered_sha256) == ""
    assert len(trusted) == 6


def test_without_a_manifest_nothing_is_intact(tmp_path: Path) -> None:
    folder = quantized_base(tmp_path, "v")
    (folder / MANIFEST).write_text("{")
    assert damage(folder) == "base.json is not readable"
    (folder / MANIFEST).unlink()
    assert damage(folder) == damage(tmp_path / "none") == "base.json is missing"


def test_its_files_are_read_several_at_a_time(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=20)

    def hash_of(file: Path) -> str:
        together.wait()  # breaks unless three wait
        return sha256_of(file)

    assert damage(quantized_base(tmp_path, "v"), hash_of) == ""
