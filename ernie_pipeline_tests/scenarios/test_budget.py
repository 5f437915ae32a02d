"""A training that is killed, then completed, then one that a budget does not let start, and that it stops."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline_tests.scenarios.chain import (
    IN_PROCESS,
    QUICK_RECIPE,
    Home,
    Planned,
    Run,
    finish,
    materialize,
    plan,
    refresh,
    start,
)

STEPS, MANY = 60, 20_000
DOWN_TO_ADAPTER = "raw_nemotron,math_split,verified_solutions,qlora_adapter"


def recipe(folder: Path, steps: int) -> Path:
    """A training with a checkpoint each half second."""
    file = folder / f"{steps}.toml"
    text = QUICK_RECIPE.replace("max_steps = 2", f"max_steps = {steps}").replace("eval_every = 2", "eval_every = 1000")
    file.write_text(f"{text}[execution]\ncheckpoint_s = 0.5\n")
    return file


@dataclass(frozen=True)
class Story(Home):
    """`killed`: the plan after a kill; `completed`: the run that went on."""

    killed: Planned
    completed: Run

    def spent(self) -> list[dict[str, Any]]:
        """The records of all runs' jobs, in their order."""
        files = self.home.glob("store/.runs/*/spent-*.json")
        return sorted((read(file) for file in files), key=lambda job: float(job["began"]))


def read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text())
    return values


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("budget")
    home, quick = folder / "home", recipe(folder, STEPS)
    started = start(home, select=DOWN_TO_ADAPTER, recipe=quick, config=IN_PROCESS)
    deadline = time.monotonic() + 120
    while not list(home.glob("store/.unfinished/qlora_adapter/*/checkpoints/checkpoint-*")):
        assert started.process.poll() is None, finish(started).output[-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in started.family:
        process.kill()
    finish(started)
    killed = plan(home, recipe=quick)
    completed = materialize(home, select=DOWN_TO_ADAPTER, recipe=quick, config=IN_PROCESS)
    return Story(home, killed, completed)


def test_what_was_spent_before_the_kill_counts(story: Story) -> None:
    assert story.killed.asset("qlora_adapter")["estimate"]["seconds"] is None
    assert story.completed.status == 0, story.completed.output[-5000:]
    assert re.search(r"going on after step [1-9]", story.completed.output)
    cost, jobs = story.json("qlora_adapter", "manifest.json")["cost"], story.spent()
    assert (cost["jobs"], len(jobs)) == (2, 2)
    assert cost["seconds"] == pytest.approx(sum(job["seconds"] for job in jobs), abs=0.01)
    assert min(job["seconds"] for job in jobs) > 1
    assert (cost["gpu_seconds"], cost["amount"], cost["unit"]) == (0, STEPS * 8, "samples")
    assert not list(story.home.glob("store/.unfinished/qlora_adapter/*"))


def test_a_refresh_above_the_budget_is_not_started(story: Story) -> None:
    jobs, many = story.spent(), recipe(story.home.parent, MANY)
    run = refresh(story.home, recipe=many, ERNIE_PIPELINE_BUDGET="30s")
    assert run.status == 4
    last = run.output.splitlines()[-1]
    assert re.fullmatch(
        r"error: the refresh is not started: it is estimated at \d+ s or more, and ERNIE_PIPELINE_BUDGET = 30s is its "
        r'cap; raise it, or build a part at a time with "dagster asset materialize --select"',
        last,
    )
    assert story.spent() == jobs


def test_a_run_that_passes_it_is_stopped_with_its_checkpoint_and_then_only_the_rest_is_to_do(story: Story) -> None:
    many, cost = recipe(story.home.parent, MANY), story.json("qlora_adapter", "manifest.json")["cost"]
    cap = f"{10 + 2 * cost['overhead_s']:.0f}s"  # so that it has made some steps, and by far not all
    run = materialize(story.home, select="qlora_adapter", recipe=many, ERNIE_PIPELINE_BUDGET=cap)
    assert run.status == 1
    stopped = re.fullmatch(
        rf"qlora_adapter passed ERNIE_PIPELINE_BUDGET = {cap} \(\d+ s spent by this run\) and was ended; raise "
        r"ERNIE_PIPELINE_BUDGET, or run again: it goes on from what is kept "
        rf"\(stopped by SIGTERM after step (\d+) of {MANY}; its checkpoint is kept: run the same command again and it "
        r"goes on from there\)",
        run.failure,
    )
    assert stopped, run.failure
    left = (MANY - int(stopped[1])) * 8
    assert 0 < left < MANY * 8
    adapter = plan(story.home, recipe=many).asset("qlora_adapter")
    assert adapter["estimate"]["basis"].startswith(f"{left} of {MANY * 8} samples to do; ")
