"""The jobs that go to the GPU's process: made from what the stage declares, and of JSON's types."""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.evaluation.job import evaluation_job
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Lora, Recipe
from ernie_pipeline.staleness.stage import DeclaredRecipe
from ernie_pipeline.staleness.stages import SOURCES, STAGES
from ernie_pipeline.training.job import training_job

RECIPE = parse_recipe(
    {"training": {"engine": "peft"}, "lora": {"rank": 4, "targets": ["q_proj"]}, "base_model": {"name": "a/b"}},
    where="test",
)
COMMIT = "c" * 40


def seen_by(stage: str, recipe: Recipe = RECIPE) -> Any:
    """What the stage may read of the recipe."""
    covered = {SOURCES[name].section for name in STAGES[stage].inputs if name in SOURCES}
    return DeclaredRecipe(recipe, frozenset({*STAGES[stage].recipe, *covered}), stage)


def test_a_training_job_has_the_pinned_base_and_the_recipe_s_values(tmp_path: Path) -> None:
    places = tmp_path / "split", tmp_path / "out", tmp_path / "checkpoints"
    job = training_job(seen_by("qlora_adapter"), f"commit:{COMMIT}", *places)
    assert json.loads(json.dumps(job)) == job
    pinned = {"name": "a/b", "checkpoint": "a/b", "revision": COMMIT, "version": f"commit:{COMMIT}"}
    assert (job["engine"], job["base"]) == ("peft", pinned)
    for section in ("quantization", "lora", "training"):
        assert job[section] == getattr(RECIPE, section).model_dump(mode="json")
    assert (job["split"], job["out"], job["checkpoints"]) == tuple(map(str, places))
    assert training_job(seen_by("qlora_adapter"), f"commit:{COMMIT}", *places[:2], None)["checkpoints"] is None


def test_which_engine_auto_stands_for_is_left_to_the_process_that_has_the_gpu(tmp_path: Path) -> None:
    recipe = seen_by("qlora_adapter", Recipe())
    assert training_job(recipe, f"commit:{COMMIT}", tmp_path, tmp_path, None)["engine"] == "auto"


def test_an_evaluation_of_the_adapter_has_its_folder_and_its_targets(tmp_path: Path) -> None:
    recipe = seen_by("adapter_evaluation")
    job = evaluation_job(recipe, f"commit:{COMMIT}", tmp_path / "split", tmp_path / "trained", tmp_path / "out")
    assert json.loads(json.dumps(job)) == job
    assert (job["adapter"], job["lora"]["targets"]) == (str(tmp_path / "trained" / "adapter"), ["q_proj"])


def test_an_evaluation_of_the_base_model_reads_nothing_of_lora(tmp_path: Path) -> None:
    recipe = seen_by("base_evaluation")
    job = evaluation_job(recipe, f"commit:{COMMIT}", tmp_path / "split", None, tmp_path / "out")
    assert (job["adapter"], job["lora"]) == (None, Lora().model_dump(mode="json"))
    with pytest.raises(RuntimeError, match=r"base_evaluation reads recipe\.lora"):
        evaluation_job(recipe, f"commit:{COMMIT}", tmp_path / "split", tmp_path / "trained", tmp_path / "out")
