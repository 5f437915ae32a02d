"""Scenario 15: SIGKILL in the middle of every stage, then again. See `kills.py` for the one story that is told."""

import json
import re

import psutil
import pytest

from ernie_pipeline_tests.scenarios.chain import ASSETS, FRESH, builds, left_half_written
from ernie_pipeline_tests.scenarios.staleness.kills import Story, registered_versions

NOT_ASKED_FOR = "verified_solutions"
"""Built in a moment, as the recipe trains on answers."""
DATA = ("raw_nemotron", "math_split", NOT_ASKED_FOR)
ORDER = (*DATA, "base_evaluation", "qlora_adapter", "adapter_evaluation", "registered_model")


@pytest.mark.parametrize("stage", [name for name in ORDER if name != NOT_ASKED_FOR])
def test_a_killed_stage_leaves_nothing_that_counts_and_the_plan_says_what_is_missing(story: Story, stage: str) -> None:
    kill = story.kill(stage)
    done = ORDER[: ORDER.index(kill.during[0])]
    assert kill.run.status == -9
    assert kill.half_written == sorted(kill.during)
    assert kill.whole == sorted(done)
    assert kill.planned.status == 3
    assert kill.planned.todo == {name: "missing: not built yet" for name in ASSETS if name not in done}


def test_each_next_run_reuses_what_was_finished_and_builds_nothing_twice(story: Story) -> None:
    for kill in story.kills[1:]:
        assert set(kill.run.built).isdisjoint(kill.during)
    for run in story.last:
        assert run.status == 0, run.output[-5000:]
        assert set(run.reused) >= set(ASSETS) - {"registered_model"}
    assert builds(story.place.home) == dict.fromkeys(ASSETS, 1)


def test_two_runs_at_once_register_once(story: Story) -> None:
    """Scenario 14: one registers, the other waits and then reuses."""
    registered, waited = sorted(story.last, key=lambda run: len(run.reused))
    assert (registered.built, waited.built) == (["registered_model"], [])
    told = r"registered_model \w+ is being built by process \d+ on .*; waiting for it, to reuse"
    assert (bool(re.search(told, registered.output)), bool(re.search(told, waited.output))) == (False, True)
    loaded = "back in a process of its own"
    assert (loaded in registered.output, loaded in waited.output) == (True, False)


def test_what_the_killed_runs_left_is_swept(story: Story) -> None:
    assert not left_half_written(story.place.home)


def test_a_version_that_was_half_registered_is_swept_too(story: Story) -> None:
    assert [checked for _, checked in story.kill("registered_model").registered] == [False]
    [(version, checked)] = registered_versions(story.place.home)
    assert checked
    registration = json.loads((story.place.artifact("registered_model") / "registration.json").read_text())
    assert registration["version"] == str(version)


def test_a_child_that_its_killed_step_left_behind_ends_by_itself(story: Story) -> None:
    orphans = story.kill("qlora_adapter").orphans
    assert len(orphans) == 2
    _, alive = psutil.wait_procs(orphans, timeout=0)
    assert not alive


def test_then_everything_is_fresh(story: Story) -> None:
    """Scenario 1, on the same home; `test_demo_chain.py` tells it of the whole demo."""
    planned = story.place.plan()
    assert (planned.status, planned.todo) == FRESH
