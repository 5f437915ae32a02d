"""Bad input and accidents, through the real command: one sentence, nothing half-written, and the next run goes on."""

import os
from pathlib import Path

import pytest

from ernie_pipeline_tests.scenarios.chain import (
    IN_PROCESS,
    QUICK_RECIPE,
    Run,
    left_half_written,
    materialize,
    rows,
    write_rows,
)

DATA_PART = "raw_nemotron,math_split"


def materialize_data(home: Path, recipe: str | Path, select: str = DATA_PART, **environment: str) -> Run:
    """The data part alone, its steps in one process."""
    return materialize(home, recipe=recipe, select=select, config=IN_PROCESS, **environment)


@pytest.fixture
def quick(tmp_path: Path) -> str:
    recipe = tmp_path / "quick.toml"
    recipe.write_text(QUICK_RECIPE)
    return str(recipe)


def test_a_broken_line_is_named_and_after_its_correction_the_run_goes_on(tmp_path: Path) -> None:
    """As far as the split, which is asked for more rows than there are.

    What is wrong in the recipe: `orchestration/test_validate.py`; a base model that is not there: `test_version.py`.
    """
    source, home = tmp_path / "rows.jsonl", tmp_path / "home"
    greedy = tmp_path / "greedy.toml"
    greedy.write_text(QUICK_RECIPE.replace("[split]", "[split]\nrows = 31"))
    lines = rows(range(30))
    write_rows(source, [*lines[:16], '{"question": "cut o', *lines[16:]])
    run = materialize_data(home, greedy, ERNIE_PIPELINE_SOURCE=str(source))
    assert run.status == 1
    assert run.failure.count(str(source)) == 1
    assert "line 17" in run.failure
    assert not list(home.glob("store/raw_nemotron/*"))

    write_rows(source, lines)
    run = materialize_data(home, greedy, ERNIE_PIPELINE_SOURCE=str(source))
    assert (run.status, run.built) == (1, ["raw_nemotron"])
    assert "30 rows are left where the split needs 31" in run.failure


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_with_room_the_run_goes_on(tmp_path: Path, quick: str) -> None:
    import subprocess

    home, source = tmp_path / "small", write_rows(tmp_path / "rows.jsonl", rows(range(300)))
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(home)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    try:
        run = materialize_data(home, quick, ERNIE_PIPELINE_SOURCE=source)
        assert run.status == 1
        assert "is full; make room" in run.failure
        assert not left_half_written(home)
        subprocess.run(["mount", "-o", "remount,size=8m", str(home)], check=True)
        run = materialize_data(home, quick, "raw_nemotron", ERNIE_PIPELINE_SOURCE=source)
        assert (run.status, run.built) == (0, ["raw_nemotron"])
    finally:
        subprocess.run(["umount", str(home)], check=True)
