"""What cannot be together with training.method = "grpo" is told when the recipe is read."""

from typing import Any

import pytest

from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.utils.errors import PipelineError

METHOD = {"method": "grpo", "samples_per_step": 64}


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (
            {"training": {**METHOD, "samples_per_step": 20}},
            "recipe here: training.samples_per_step = 20 is no multiple of grpo.group = 8: a step takes whole groups "
            "of answers; make it 16",
        ),
        (
            {"training": {**METHOD, "samples_per_step": 2}},
            "recipe here: training.samples_per_step = 2 is no multiple of grpo.group = 8: a step takes whole groups of "
            "answers; make it 8",
        ),
        (
            {"training": {**METHOD, "eval_every": 25}, "grpo": {"updates_per_batch": 4}},
            "recipe here: training.eval_every = 25 is no multiple of grpo.updates_per_batch = 4: the run is measured "
            "between two batches of answers; make it 28",
        ),
        (
            {"training": METHOD, "lora": {"dropout": 0.1}},
            'recipe here: lora.dropout = 0.1 does not go with training.method = "grpo": answers are sampled without '
            "it, so that the two would disagree on their probability; set it to 0",
        ),
        ({"grpo": {"group": 1}}, "recipe here: grpo.group = 1: input should be greater than or equal to 2"),
        (
            {"grpo": {"temperature": 0}},
            "recipe here: grpo.temperature = 0: input should be greater than or equal to 0.01",
        ),
        ({"grpo": {"format_reward": 1}}, "recipe here: grpo.format_reward = 1: input should be less than 1"),
        (
            {"solutions": {"temperature": 1e-300}},
            "recipe here: solutions.temperature = 1e-300: input should be greater",
        ),
        ({"grpo": {"max_importance": 0.5}}, "recipe here: grpo.max_importance = 0.5: input should be greater than or"),
    ],
)
def test_what_cannot_be_is_told(tables: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PipelineError) as told:
        parse_recipe(tables, where="recipe here")
    assert str(told.value).startswith(sentence)


def test_what_only_grpo_asks_for_is_not_asked_of_others() -> None:
    recipe = parse_recipe({"training": {"samples_per_step": 20}, "lora": {"dropout": 0.1}}, where="recipe here")
    assert recipe.training.method == "supervised"
    parse_recipe({"training": METHOD, "grpo": {"group": 16}}, where="recipe here")
