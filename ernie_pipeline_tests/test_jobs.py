"""The jobs that go to the GPU's process: made from what the stage declares, frozen, and checked on both sides."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ernie_pipeline.evaluation.job import EvaluationJob, evaluation_job
from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Lora, Recipe
from ernie_pipeline.staleness.stage import DeclaredRecipe
from ernie_pipeline.staleness.stages import SOURCES, STAGES
from ernie_pipeline.training.job import TrainingJob, training_job

RECIPE = parse_recipe(
    {"training": {"backend": "peft"}, "lora": {"rank": 4, "targets": ["q_proj"]}, "base_model": {"name": "a/b"}},
    where="test",
)
COMMIT = "c" * 40
VERSION = f"commit:{COMMIT}"
PINNED = BaseCheckpoint(name="a/b", checkpoint="a/b", revision=COMMIT, version=VERSION)


def seen_by(stage: str, recipe: Recipe = RECIPE) -> Any:
    """What the stage may read of the recipe."""
    covered = {SOURCES[name].section for name in STAGES[stage].inputs if name in SOURCES}
    return DeclaredRecipe(recipe, frozenset({*STAGES[stage].recipe, *covered}), stage)


def train_in(folder: Path, recipe: Recipe = RECIPE, **given: Any) -> TrainingJob:
    places = {"split": folder / "split", "out": folder / "out"}
    return training_job(seen_by("qlora_adapter", recipe), VERSION, folder / "bases", **places, **given)


def evaluate_in(folder: Path, stage: str, adapter: Path | None, **given: Any) -> EvaluationJob:
    places = {"split": folder / "split", "out": folder / "out"}
    return evaluation_job(seen_by(stage), VERSION, folder / "bases", adapter, **places, **given)


def test_a_training_job_has_the_pinned_base_and_the_recipe_s_values(tmp_path: Path) -> None:
    job = train_in(tmp_path, checkpoints=tmp_path / "checkpoints")
    assert (job.spec.backend, job.spec.base, job.spec.adapter) == ("peft", PINNED, None)
    assert (job.spec.quantization, job.spec.lora, job.training) == (RECIPE.quantization, RECIPE.lora, RECIPE.training)
    assert job.spec.quantized_bases == tmp_path / "bases"
    assert (job.split, job.out) == (tmp_path / "split", tmp_path / "out")
    assert job.checkpoints == tmp_path / "checkpoints"
    assert train_in(tmp_path).checkpoints is None


def test_a_job_says_by_which_backend_and_not_auto(tmp_path: Path) -> None:
    """It is in the fingerprint, so it is decided before there is a job."""
    with pytest.raises(ValidationError, match=r"(?s)backend.*'peft', 'grouped' or 'unsloth'"):
        train_in(tmp_path, parse_recipe({"training": {"backend": "auto"}}, where="test"))


def test_an_evaluation_of_the_adapter_has_its_folder_and_its_targets(tmp_path: Path) -> None:
    job = evaluate_in(tmp_path, "adapter_evaluation", tmp_path / "trained")
    assert (job.spec.backend, job.spec.base, job.evaluation) == ("peft", PINNED, RECIPE.evaluation)
    assert (job.spec.adapter, job.spec.lora.targets) == (tmp_path / "trained" / "adapter", ("q_proj",))


def test_an_evaluation_of_the_base_model_reads_nothing_of_lora(tmp_path: Path) -> None:
    job = evaluate_in(tmp_path, "base_evaluation", None)
    assert (job.spec.adapter, job.spec.lora) == (None, Lora())
    with pytest.raises(RuntimeError, match=r"base_evaluation reads recipe\.lora"):
        evaluate_in(tmp_path, "base_evaluation", tmp_path / "trained")


EXECUTION = ExecutionOverrides(profile="24gb", micro_batch=3, packing=False, memory_limit_gib=1.5)


@pytest.fixture(params=["training", "base_evaluation", "adapter_evaluation"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> TrainingJob | EvaluationJob:
    """One of each, with all that may be given."""
    given: dict[str, Any] = {"execution": EXECUTION, "limits": DeviceLimits(kind="A100", memory_gib=7.5, cpu_threads=3)}
    if request.param == "training":
        return train_in(tmp_path, checkpoints=tmp_path / "checkpoints", **given)
    return evaluate_in(tmp_path, request.param, tmp_path if request.param == "adapter_evaluation" else None, **given)


def test_a_job_is_the_same_on_the_other_side_of_a_process_border(job: TrainingJob | EvaluationJob) -> None:
    there = type(job).model_validate_json(job.model_dump_json())
    assert there == job
    assert there.execution == EXECUTION
    assert isinstance(there.out, Path)
    assert type(job).model_validate(job.model_dump(mode="json")) == job


def test_a_job_cannot_be_changed(job: TrainingJob | EvaluationJob) -> None:
    for part, name in ((job, "out"), (job.spec, "adapter"), (job.spec.base, "checkpoint"), (job.limits, "kind")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, "other")


@pytest.mark.parametrize("place", [(), ("spec",), ("spec", "base"), ("execution",), ("limits",)])
def test_an_unknown_field_is_refused(job: TrainingJob | EvaluationJob, place: tuple[str, ...]) -> None:
    values = job.model_dump(mode="json")
    part = values
    for name in place:
        part = part[name]
    part["engine"] = "peft"
    with pytest.raises(ValidationError, match=r"engine\n +Extra inputs are not permitted"):
        type(job).model_validate(values)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("spec", "backend", "auto"),
        ("execution", "micro_batch", 0),
        ("execution", "profile", "12gb"),
        ("limits", "memory_gib", -1),
    ],
)
def test_a_wrong_value_is_refused(job: TrainingJob | EvaluationJob, place: str, name: str, value: Any) -> None:
    values = job.model_dump(mode="json")
    values[place][name] = value
    with pytest.raises(ValidationError, match=rf"{place}\.{name}"):
        type(job).model_validate(values)


@pytest.mark.parametrize("lost", ["spec", "split", "out"])
def test_a_lost_field_is_refused(job: TrainingJob | EvaluationJob, lost: str) -> None:
    values = job.model_dump(mode="json")
    del values[lost]
    with pytest.raises(ValidationError, match=rf"{lost}\n +Field required"):
        type(job).model_validate(values)
