"""Scenarios 7, 8 and 9: the recipe changes."""

import json
from dataclasses import dataclass, replace

import pytest

from ernie_pipeline_tests.scenarios.chain import (
    ASSETS,
    BELOW_SPLIT,
    FRESH,
    Planned,
    Run,
    builds,
    left_half_written,
)
from ernie_pipeline_tests.scenarios.staleness.kills import Story
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace, short


@dataclass(frozen=True)
class Retrained:
    """A home after its learning rate was changed and a run trained with it."""

    place: Workplace
    before: Planned
    run: Run


@pytest.fixture(scope="module")
def retrained(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    place = story.place.copy(tmp_path_factory.mktemp("retrained"))
    place.edit_recipe("learning_rate = 3e-3", "learning_rate = 2e-3")
    before = place.plan()
    return Retrained(place, before, place.materialize("qlora_adapter"))


def test_a_training_change_makes_the_adapter_stale_and_what_is_below_wait(retrained: Retrained) -> None:
    """Scenario 7."""
    assert retrained.before.status == 3
    assert retrained.before.todo == {
        "qlora_adapter": "stale: recipe training.learning_rate 0.003 -> 0.002",
        "adapter_evaluation": "waiting: waits for qlora_adapter",
        "registered_model": "waiting: waits for qlora_adapter, adapter_evaluation",
    }


def test_the_run_trains_and_builds_nothing_else(retrained: Retrained) -> None:
    """Scenario 7. `test_kills.py` has two runs at once."""
    assert (retrained.run.status, retrained.run.built) == (0, ["qlora_adapter"]), retrained.run.output[-5000:]
    assert builds(retrained.place.home) == {name: 1 + (name == "qlora_adapter") for name in ASSETS}
    assert "loading demo in 4 bits" in retrained.run.output
    assert not left_half_written(retrained.place.home)


def test_after_it_only_what_reads_the_adapter_is_stale(retrained: Retrained) -> None:
    """Scenario 7."""
    planned = retrained.place.plan()
    before, now = (short(p.asset("qlora_adapter")["data_version"]) for p in (retrained.before, planned))
    changed = f"stale: input qlora_adapter {before} -> {now}"
    assert planned.todo["adapter_evaluation"] == changed
    assert planned.todo["registered_model"] == changed
    assert len(planned.todo) == 2


def test_a_changed_evaluation_setting_leaves_the_adapter_and_refresh_runs_only_what_is_stale(built: Workplace) -> None:
    """Scenario 8. No answer takes a second to grade: both evaluations come out as before, so nothing is registered.

    What decides no answer costs none: the models generate no token anew.
    """
    built.edit_recipe("[evaluation]", "[evaluation]\ngrading_timeout_s = 6.0")
    planned = built.plan()
    assert planned.status == 3
    assert planned.todo == {
        "base_evaluation": "stale: recipe evaluation.grading_timeout_s 5.0 -> 6.0",
        "adapter_evaluation": "stale: recipe evaluation.grading_timeout_s 5.0 -> 6.0",
        "registered_model": "waiting: waits for base_evaluation, adapter_evaluation",
    }
    run = built.refresh()
    assert run.status == 0, run.output[-5000:]
    assert set(run.materialized) == {"base_evaluation", "adapter_evaluation", "registered_model"}
    assert set(run.built) == {"base_evaluation", "adapter_evaluation"}
    for name in run.built:
        reports = [json.loads(file.read_text()) for file in (built.home / "store" / name).glob("*/reports/run.json")]
        made, reused = sorted((report["generated_tokens"], report["problems_reused"]) for report in reports)[::-1]
        assert made[0] > 0 == reused[0]
        assert reused[1] > 0 == made[1]
    planned = built.plan()
    assert (planned.status, planned.todo) == FRESH


def test_refresh_starts_no_run_when_all_is_fresh(built: Workplace) -> None:
    run = built.refresh()
    assert run.status == 0
    assert "Everything is fresh" in run.output
    assert "RUN_START" not in run.output


def test_how_it_is_computed_makes_nothing_stale(built: Workplace) -> None:
    """A changed table `[execution]`, or ERNIE_PIPELINE_EXECUTION, leaves the plan as it was."""
    for execution in ("24gb", "micro_batch = 2, packing = true, generation_rows = 3"):
        planned = built.plan(ERNIE_PIPELINE_EXECUTION=execution)
        assert (planned.status, planned.todo) == FRESH, execution
    built.edit_recipe("[evaluation]", '[execution]\nprofile = "cpu"\nmicro_batch = 2\n[evaluation]')
    planned = built.plan()
    assert (planned.status, planned.todo) == FRESH
    built.edit_recipe("micro_batch = 2", "micro_batch = 4\ngradient_checkpointing = true")
    planned = built.plan()
    assert (planned.status, planned.todo) == FRESH


def test_a_recipe_that_goes_back_reuses_everything(retrained: Retrained, story: Story) -> None:
    """Scenario 9. A run where all is fresh reuses all of it: `test_elsewhere.py`."""
    planned = replace(retrained.place, recipe=story.place.recipe).plan()
    assert (planned.status, planned.todo) == FRESH


def test_a_changed_filter_names_itself_and_all_below_the_split_wait(built: Workplace) -> None:
    built.edit_recipe("[split]", "[filters]\nmax_question_chars = 1999\n[split]")
    todo = built.plan().todo
    assert todo["math_split"] == "stale: recipe filters.max_question_chars 2000 -> 1999"
    assert {name: why.partition(":")[0] for name, why in todo.items()} == {
        "math_split": "stale",
        **dict.fromkeys(BELOW_SPLIT, "waiting"),
    }
