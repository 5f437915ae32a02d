"""What a stage may read of the recipe."""

from operator import attrgetter

import pytest

from ernie_pipeline.recipe.sections import Lora, Recipe
from ernie_pipeline.staleness.code import reached
from ernie_pipeline.staleness.stage import DeclaredRecipe, section
from ernie_pipeline.staleness.stages import STAGES

DECLARED = DeclaredRecipe(Recipe(), frozenset({"lora", "training.backend", "source.split"}), "a_stage")


def test_a_declared_section_is_read_whole() -> None:
    assert DECLARED.lora == Lora()
    assert DECLARED.lora.model_dump(mode="json")["rank"] == 16


def test_of_a_declared_key_s_section_that_key_alone_is_read() -> None:
    assert DECLARED.training.backend == "auto"
    with pytest.raises(RuntimeError) as caught:
        _ = DECLARED.training.seed
    assert str(caught.value) == (
        "a_stage reads recipe.training.seed, which its stage does not declare: a change of it would go unnoticed"
    )


@pytest.mark.parametrize("name", ["gate", "source.kind", "training.model_dump", "training.max_steps"])
def test_what_is_not_declared_cannot_be_read(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^a_stage reads recipe\.{name}, which"):
        attrgetter(name)(DECLARED)


def test_a_key_that_no_recipe_has_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="trainig"):
        _ = DECLARED.trainig


def test_a_section_and_a_key_are_plain_values() -> None:
    assert section(Recipe(), "gate") == {"min_gain": 0.0, "max_p_value": 0.05}
    assert section(Recipe(), "lora.targets") == list(Lora().targets)


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage.by_row])
def test_what_decides_a_row_decides_the_stage(name: str) -> None:
    """Else a row could go stale under an artifact that is fresh."""
    stage = STAGES[name]
    assert stage.by_row
    assert {*stage.by_row.inputs} <= {*stage.inputs}
    assert all({key, key.partition(".")[0]} & {*stage.recipe} for key in stage.by_row.recipe)
    assert {*stage.by_row.libraries} <= {*stage.libraries}
    assert reached(stage.by_row.code) <= reached(stage.code) | {*stage.by_row.code}
    assert not any("answers" in module for module in reached(stage.by_row.code)), "grading decides no answer"
