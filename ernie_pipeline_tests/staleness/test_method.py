"""What the method of training adds to what makes the adapter stale."""

from pathlib import Path
from typing import Any

from ernie_pipeline.grading import LIBRARIES
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness import code
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.stage import DeclaredRecipe
from ernie_pipeline.staleness.stages import STAGES, with_method
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.training.job import training_job

GRPO = {"training": {"method": "grpo", "backend": "peft"}}
OTHERS = {"training": {"backend": "peft"}}


def recipe(*tables: dict[str, Any]) -> Recipe:
    return parse_recipe({name: values for table in tables for name, values in table.items()}, where="test")


def declared(asked: Recipe, folder: Path) -> dict[str, str]:
    chain = Chain(asked, ArtifactStore(folder), with_method(STAGES, asked), {})
    return {name: chain.declared_version(name) for name in STAGES}


def test_its_section_counts_where_it_is_the_method_and_only_there(tmp_path: Path) -> None:
    group = {"grpo": {"group": 4}}
    plain, other = (declared(recipe(*tables), tmp_path) for tables in ((OTHERS,), (OTHERS, group)))
    assert plain == other
    first, second = (declared(recipe(*tables), tmp_path) for tables in ((GRPO,), (GRPO, group)))
    assert {name for name in STAGES if first[name] != second[name]} == {"qlora_adapter"}
    assert {name for name in STAGES if first[name] != plain[name]} == {"qlora_adapter"}


def test_so_does_how_answers_are_graded() -> None:
    asked, adapter = recipe(GRPO), "qlora_adapter"
    grading = {"ernie_pipeline.grading.judge", "ernie_pipeline.training.grpo.advantages"}
    assert grading <= code.reached(with_method(STAGES, asked)[adapter].code)
    assert {*LIBRARIES} <= {*with_method(STAGES, asked)[adapter].libraries}
    supervised = with_method(STAGES, recipe(OTHERS))[adapter]
    assert supervised is STAGES[adapter]
    reached = code.reached(supervised.code)
    assert not [name for name in reached if name.startswith(("ernie_pipeline.grading", "ernie_pipeline.training.grpo"))]


def test_the_job_has_what_the_stage_declares(tmp_path: Path) -> None:
    for asked in (recipe(GRPO, {"grpo": {"group": 4}}), recipe(OTHERS)):
        keys = frozenset({*with_method(STAGES, asked)["qlora_adapter"].recipe, "base_model"})
        seen: Any = DeclaredRecipe(asked, keys, "qlora_adapter")
        commit = f"commit:{'c' * 40}"
        job = training_job(seen, commit, tmp_path / "bases", split=tmp_path / "split", out=tmp_path / "out")
        assert job.grpo == (asked.grpo if asked.training.method == "grpo" else None)
        assert type(job).model_validate_json(job.model_dump_json()) == job
