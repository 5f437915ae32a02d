"""Bad input and accidents, through the real command: one sentence, nothing half-written, and the next run goes on."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from ernie_pipeline_tests.scenarios.chain import ASSETS, QUICK_RECIPE, aside, finish, materialize, start

DATA_PART = "raw_nemotron,math_split"


@pytest.fixture
def quick(tmp_path: Path) -> str:
    recipe = tmp_path / "quick.toml"
    recipe.write_text(QUICK_RECIPE)
    return str(recipe)


def rows(count: int) -> list[str]:
    return [
        json.dumps(
            {
                "responses_create_params": {"input": [{"role": "user", "content": f"Box it.\n\nWhat is {n} + {n}?"}]},
                "question": f"What is {n} + {n}?",
                "expected_answer": str(2 * n),
            }
        )
        for n in range(count)
    ]


def test_a_broken_line_is_named_and_after_its_correction_the_run_goes_on(tmp_path: Path, quick: str) -> None:
    source, home = tmp_path / "rows.jsonl", tmp_path / "home"
    lines = rows(30)
    source.write_text("\n".join([*lines[:16], '{"question": "cut o', *lines[16:]]) + "\n")
    run = materialize(home, recipe=quick, select=DATA_PART, ERNIE_PIPELINE_SOURCE=str(source))
    assert run.status == 1
    assert run.failure.count(str(source)) == 1
    assert "line 17" in run.failure
    assert not list(home.glob("store/raw_nemotron/*"))

    source.write_text("\n".join(lines) + "\n")
    run = materialize(home, recipe=quick, select=DATA_PART, ERNIE_PIPELINE_SOURCE=str(source))
    assert run.status == 0, run.output[-3000:]
    assert run.materialized == ["raw_nemotron", "math_split"]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("max_steps", "max_step"), "unknown key training.max_step; did you mean 'max_steps'?"),
        (('name = "demo"', 'name = "./nowhere"'), "there is no such folder"),
        (("[training]", '[training]\nengine = "unsloth"'), "is not in this version"),
    ],
)
def test_a_recipe_that_cannot_work_says_so(tmp_path: Path, edit: tuple[str, str], told: str) -> None:
    recipe = tmp_path / "edited.toml"
    recipe.write_text(QUICK_RECIPE.replace(*edit))
    run = materialize(tmp_path / "home", recipe=str(recipe))
    assert run.status == 1
    assert told in run.failure
    assert "\n" not in run.failure
    assert not aside(tmp_path / "home")


def test_a_missing_source_file_and_too_few_rows(tmp_path: Path, quick: str) -> None:
    missing = tmp_path / "missing.jsonl"
    run = materialize(tmp_path / "home", recipe=quick, select=DATA_PART, ERNIE_PIPELINE_SOURCE=str(missing))
    assert str(missing) in run.failure
    source, recipe = tmp_path / "rows.jsonl", tmp_path / "greedy.toml"
    source.write_text("\n".join(rows(10)) + "\n")
    recipe.write_text(QUICK_RECIPE.replace("[split]", "[split]\nrows = 11"))
    run = materialize(tmp_path / "home", recipe=str(recipe), select=DATA_PART, ERNIE_PIPELINE_SOURCE=str(source))
    assert "10 rows are left where the split needs 11" in run.failure


def test_a_trainer_killed_half_way_leaves_nothing_and_the_next_run_builds_only_what_is_missing(
    tmp_path: Path, quick: str
) -> None:
    home = tmp_path / "home"
    long = tmp_path / "long.toml"
    long.write_text(QUICK_RECIPE.replace("max_steps = 4", "max_steps = 40"))
    process = start(home, recipe=str(long))
    _trainer_of(process.pid).send_signal(signal.SIGKILL)
    run = finish(process)
    assert run.status == 1
    assert "ernie_pipeline.training was ended by signal 9" in run.failure
    assert not list(home.glob("store/qlora_adapter/*"))
    assert not aside(home)

    again = materialize(home, recipe=str(long))
    assert again.status == 0, again.output[-3000:]
    assert set(again.materialized) == set(ASSETS)
    assert {"raw_nemotron", "math_split", "base_evaluation"} >= set(again.reused) >= {"raw_nemotron", "math_split"}


def _trainer_of(pid: int) -> psutil.Process:
    """The trainer, once it has begun to train (its second thread of work is torch's)."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children(recursive=True):
            try:
                if "ernie_pipeline.training" in child.cmdline() and child.memory_info().rss > 500 * 2**20:
                    return child
            except psutil.Error:
                continue
        time.sleep(0.2)
    raise AssertionError("no trainer was started")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_with_room_the_run_goes_on(tmp_path: Path, quick: str) -> None:
    import subprocess

    home = tmp_path / "small"
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(home)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    try:
        run = materialize(home, recipe=quick, select=DATA_PART)
        assert run.status == 1
        assert "is full; make room" in run.failure
        assert not aside(home)
        subprocess.run(["mount", "-o", "remount,size=8m", str(home)], check=True)
        assert materialize(home, recipe=quick, select=DATA_PART).status == 0
    finally:
        subprocess.run(["umount", str(home)], check=True)
