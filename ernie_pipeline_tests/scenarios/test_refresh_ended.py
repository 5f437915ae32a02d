"""A refresh that is told to end in the middle of a training ends Dagster's run, which keeps its checkpoint."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ernie_pipeline_tests.scenarios.chain import QUICK_RECIPE, Started, finish, start_python

MANY = 20_000


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ended") / "long.toml"
    text = QUICK_RECIPE.replace("max_steps = 2", f"max_steps = {MANY}").replace("eval_every = 2", "eval_every = 1000")
    file.write_text(f"{text}[execution]\ncheckpoint_s = 0.5\n")
    return file


@pytest.fixture(autouse=True)
def hangs_up() -> Iterator[None]:
    """Under nohup a hang-up is ignored, by what is started there too, and the refresh would go on, as it should."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def group(pid: int, number: int) -> None:
    """As a terminal does; Dagster's process and its steps' are told too."""
    os.killpg(pid, number)


@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGTERM, os.kill),
        (signal.SIGHUP, group),
        (signal.SIGINT, group),
        (signal.SIGTERM, group),
    ],
    ids=["SIGTERM", "SIGHUP of a terminal", "Ctrl-C", "SIGTERM of a service"],
)
def test_it_ends_all_it_started_and_the_next_one_goes_on(
    recipe: Path, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """One after the other in one home: each goes on from the checkpoint of the one before."""
    home = recipe.parent / "home"
    before = newest(home)
    started, family = in_training(home, recipe)
    send(started.process.pid, number)
    run = finish(started)
    assert run.status == 128 + number
    assert f"of {MANY}; its checkpoint is kept" in run.output
    told = rf"qlora_adapter goes on after step [1-9]\d* of {MANY}(; .*)?\. Go on with: ernie refresh$"
    assert re.search(rf"^interrupted: .*{told}", run.output, re.MULTILINE)
    assert "watch_orphans" not in run.output, "the helpers of Dagster's log are not told by the terminal"
    if before:
        assert re.search(r"going on after step [1-9]", run.output)
    assert re.search(r"^This refresh spent \d", run.output, re.MULTILINE), "it was there to the end"
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    assert newest(home) > before


def test_of_one_that_is_killed_dagster_s_run_ends_too_and_keeps_its_checkpoint(recipe: Path) -> None:
    home = recipe.parent / "home"
    before = newest(home)
    started, family = in_training(home, recipe)
    started.process.kill()
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    output = finish(started).output
    assert f"of {MANY}; its checkpoint is kept" in output, "it was cancelled, and not killed"
    assert newest(home) > before


def in_training(home: Path, recipe: Path) -> tuple[Started, list[psutil.Process]]:
    """A refresh that has written a checkpoint, and all that it started."""
    before = newest(home)
    started = start_python(["-m", "ernie_pipeline", "refresh"], home, recipe, None, {})
    deadline = time.monotonic() + 180
    while len(started.family) < 2 or newest(home) <= before:
        assert started.process.poll() is None, finish(started).output[-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return started, started.family


def newest(home: Path) -> int:
    """The step of the latest checkpoint, 0 where there is none."""
    found = home.glob("store/.unfinished/qlora_adapter/*/checkpoints/checkpoint-*")
    return max((int(file.name.rpartition("-")[2]) for file in found), default=0)
