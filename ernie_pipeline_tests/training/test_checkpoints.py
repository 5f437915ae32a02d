"""Checkpoints are whole or not there: through kills at any moment, full disks, and what else befalls files."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ernie_pipeline.training.checkpoints import MANIFEST, Checkpoints
from ernie_pipeline.utils.errors import PipelineError

KILLS = 20
WORDS = 2**16

WRITER = """
import os, sys
from pathlib import Path
from ernie_pipeline.training.checkpoints import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]))
newest = checkpoints.newest(print)
step = newest.step if newest else 0
while True:
    step += 1
    def fill(folder):
        (folder / "deep").mkdir()
        for name in ("model", "deep/optimizer"):
            (folder / name).write_bytes(step.to_bytes(4, "big") * int(sys.argv[2]))
    checkpoints.write(step, fill, {"step": step})
    print(step, flush=True)
    checkpoints.keep(step, step - 1)
"""


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "of this training")


def fill(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "model").write_bytes(b"weights")
    (folder / "deep" / "optimizer").write_bytes(b"moments")


def newest(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    """The step of the newest intact checkpoint, and what was said of broken ones."""
    broken: list[str] = []
    found = checkpoints.newest(broken.append)
    return found.step if found else None, broken


def test_what_was_written_is_found_with_its_facts(checkpoints: Checkpoints) -> None:
    assert newest(checkpoints) == (None, [])
    checkpoints.write(5, fill, {"loss": 0.5})
    written = checkpoints.write(10, fill, {"loss": 0.25, "curve": [{"step": 1}]})
    checkpoints.write(9, fill, {"loss": 0.3})
    found = checkpoints.newest(pytest.fail)
    assert found == written
    assert (found.step, found.facts) == (10, {"loss": 0.25, "curve": [{"step": 1}]})
    assert (found.folder / "deep" / "optimizer").read_bytes() == b"moments"


def test_killed_at_any_moment_the_newest_is_whole_and_no_older_than_the_last_that_was_told(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    rng, last, unfinished = random.Random(seed), 0, 0
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(WORDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = [writer.stdout.readline()]
            time.sleep(rng.uniform(0, 0.03))
            writer.kill()
            told += writer.stdout.readlines()
        unfinished += len(list(tmp_path.glob(".checkpoint-*")))
        broken: list[str] = []
        found = Checkpoints(tmp_path).newest(broken.append)
        assert broken == [], seed
        assert found is not None, seed
        assert found.step >= max(last, int(told[-1])), seed
        for name in ("model", "deep/optimizer"):
            assert (found.folder / name).read_bytes() == found.step.to_bytes(4, "big") * WORDS, seed
        last = found.step
    assert unfinished > 0, "no kill came in the middle of writing"
    Checkpoints(tmp_path).write(last + 1, fill, {})
    assert list(tmp_path.glob(".*")) == []


Break = Callable[[Path], object]


def alter(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: os.truncate(folder / "model", 3), "model"),
        (lambda folder: alter(folder / "deep" / "optimizer"), "deep/optimizer"),
        (lambda folder: (folder / "model").unlink(), "model is missing"),
        (lambda folder: (folder / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        (lambda folder: alter(folder / MANIFEST), MANIFEST),
        (lambda folder: (folder / MANIFEST).write_text("[]"), f"{MANIFEST} is not readable"),
    ],
)
def test_a_broken_one_is_told_and_passed_over(checkpoints: Checkpoints, harm: Break, told: str) -> None:
    older = checkpoints.write(5, fill, {})
    harm(checkpoints.write(10, fill, {}).folder)
    step, [sentence] = newest(checkpoints)
    assert step == older.step
    assert str(checkpoints.folder / "checkpoint-10") in sentence
    assert told in sentence
    checkpoints.write(10, fill, {})
    assert newest(checkpoints) == (10, [])


def test_an_empty_folder_is_no_checkpoint(checkpoints: Checkpoints) -> None:
    checkpoints.write(5, fill, {})
    (checkpoints.folder / "checkpoint-10").mkdir()
    step, [sentence] = newest(checkpoints)
    assert (step, f"{MANIFEST} is missing" in sentence) == (5, True)


def test_a_renamed_one_is_no_checkpoint_of_the_step_in_its_name(checkpoints: Checkpoints) -> None:
    folder = checkpoints.write(5, fill, {}).folder
    folder.rename(folder.with_name("checkpoint-10"))
    step, [sentence] = newest(checkpoints)
    assert step is None
    assert "it is of another step" in sentence


def test_an_error_while_writing_leaves_the_older_ones_and_nothing_else(checkpoints: Checkpoints) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise ValueError("in the middle")

    checkpoints.write(5, fill, {})
    for step in (5, 10):
        with pytest.raises(ValueError, match="in the middle"):
            checkpoints.write(step, fail, {})
    assert newest(checkpoints) == (5, [])
    assert [path.name for path in checkpoints.folder.iterdir()] == ["checkpoint-5"]


def test_only_those_that_are_to_be_kept_stay(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 15):
        checkpoints.write(step, fill, {})
    (checkpoints.folder / "notes.txt").write_text("somebody's")
    checkpoints.keep(5, 15)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["checkpoint-15", "checkpoint-5", "notes.txt"]
    assert newest(checkpoints) == (15, [])


def test_cut_short_while_it_removes_it_leaves_nothing_that_looks_whole(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(folder: Path, **options: object) -> None:
        (folder / "model").unlink()
        raise KeyboardInterrupt

    for step in (5, 10):
        checkpoints.write(step, fill, {})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", cut_short)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.keep()
    assert newest(checkpoints)[1] == []
    checkpoints.keep()
    assert list(checkpoints.folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a full disk needs a small file system, and none can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def plain(folder: Path) -> None:
    (folder / "model").write_bytes(bytes(2**21))


def torch_save(folder: Path) -> None:
    """Its error does not say that the disk is full."""
    import torch

    torch.save(torch.zeros(2**19), folder / "optimizer.pt")


@pytest.mark.parametrize("too_much", [plain, torch_save])
def test_a_full_disk_is_one_sentence_and_the_older_checkpoint_stays(
    small_disk: Path, too_much: Callable[[Path], None]
) -> None:
    checkpoints = Checkpoints(small_disk / "run")
    checkpoints.write(5, fill, {"loss": 0.5})
    with pytest.raises(PipelineError, match=r"^the checkpoint of step 10 .* the disk that holds .* is full; make room"):
        checkpoints.write(10, too_much, {})
    assert newest(checkpoints) == (5, [])
    assert [path.name for path in checkpoints.folder.iterdir()] == ["checkpoint-5"]
    checkpoints.write(10, fill, {})
    assert json.loads((small_disk / "run" / "checkpoint-10" / MANIFEST).read_text())["step"] == 10
