"""Which samples a run sees, in which order, and which of them make up a step."""

from collections import Counter
from typing import Any

import pytest

from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.sections import Training
from ernie_pipeline.training.schedule.order import number_of_samples, plan_steps, sample_order
from ernie_pipeline.utils.errors import PipelineError


def test_each_epoch_is_a_permutation_of_its_own_and_the_last_is_cut() -> None:
    order = sample_order(rows=10, seed=3, samples=25)
    assert [sorted(order[start : start + 10]) for start in (0, 10)] == [list(range(10))] * 2
    assert order[:10] != order[10:20]
    assert len(order) == 25
    assert len(set(order[20:])) == 5


def test_the_order_follows_from_seed_and_rows_and_a_longer_run_begins_like_a_shorter_one() -> None:
    assert sample_order(100, 1, 250) == sample_order(100, 1, 250)
    assert sample_order(100, 1, 250)[:30] == sample_order(100, 1, 30)
    assert sample_order(100, 1, 100) != sample_order(100, 2, 100)
    assert sample_order(6, 3407, 6) == [1, 2, 5, 3, 0, 4]  # on every machine, with every Python


@pytest.mark.parametrize(
    ("values", "samples"),
    [
        ({"max_steps": 7, "samples_per_step": 8}, 56),
        ({"max_samples": 5600, "samples_per_step": 4}, 5600),
        ({"epochs": 0.25}, 3),
        ({"epochs": 2}, 20),
    ],
)
def test_how_many_samples(values: dict[str, Any], samples: int) -> None:
    assert number_of_samples(Training(**values), rows=10) == samples


def test_a_step_has_as_many_samples_as_the_recipe_says_and_the_last_one_what_is_left() -> None:
    steps = plan_steps(50, Training(max_samples=117, samples_per_step=8))
    assert [len(step) for step in steps] == [8] * 14 + [5]
    assert [sample for step in steps for sample in step] == sample_order(50, 3407, 117)


def test_the_reference_takes_the_notebook_s_steps() -> None:
    steps = plan_steps(7600, load_recipe("reference").training)
    assert Counter(map(len, steps)) == {8: 700}


def test_no_rows_is_told() -> None:
    with pytest.raises(PipelineError, match="no training rows"):
        plan_steps(0, Training())
