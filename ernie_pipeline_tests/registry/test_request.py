"""The request for a registration, gathered from artifacts by a stage that may read only what it declares."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.registry.registration import RegistrationRequest
from ernie_pipeline.registry.request import make_request
from ernie_pipeline.staleness.stage import DeclaredRecipe
from ernie_pipeline.staleness.stages import SOURCES, STAGES
from ernie_pipeline_tests.registry.conftest import COMPARISON, TARGETS

STAGE = STAGES["registered_model"]
VERSIONS = {name: f"{name}-version" for name in STAGE.inputs} | {"base_model": "commit:" + "c" * 40}
RECIPE = parse_recipe(
    {
        "source": {"kind": "hub", "dataset": "nvidia/Nemotron-RL-math-OpenMathReasoning"},
        "base_model": {"name": "a/b"},
        "training": {"backend": "peft", "seed": 1},
        "evaluation": {"max_new_tokens": 9},
        "execution": {"generation_rows": 3},
        "registry": {"model_name": "quick"},
    },
    where="test",
)
BUILT_WITH: list[dict[str, Any]] = [
    {"split": {"seed": 5}, "filters": {"proof": True}},
    {"training": {"seed": 1}, "lora": {"targets": ["q_proj", "k_proj"]}},
]


@pytest.fixture
def request_made(tmp_path: Path) -> RegistrationRequest:
    measured = {"rows": 2, "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9, "loss_completion": 1.0}
    run = {"train_rows": 8, "eval_rows": 2, "steps": 4, "seconds": 1.5, "backend": "peft", "device": "cpu"}
    run |= {"kept_step": 2}
    values: dict[str, Any] = {
        "qlora_adapter/curve.json": [
            {"step": 1, "loss": 2.0},
            {"step": 2, "loss": 1.5, "loss_objective": 1.25},
            {"step": 4, "loss_objective": 1.5},
        ],
        "qlora_adapter/reports/speed.json": [{"step": 2, "tokens_per_s": 9.0, "seconds": 1.0}],
        "qlora_adapter/reports/run.json": run,
        "qlora_adapter/parameters.json": TARGETS,
        "base_evaluation/metrics.json": measured,
        "adapter_evaluation/metrics.json": measured | {"accuracy": 1.0, "by_kind": {"integer": {"accuracy": 1.0}}},
        "adapter_evaluation/probe.json": {"input_ids": [1], "top": [[2, 0.5]]},
    }
    for name, value in values.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "math_split").mkdir()
    prompts = [[{"role": "user", "content": f"Box it. {question}"}] for question in ("1 + 1?", "2 + 2?")]
    pl.DataFrame({"question": ["1 + 1?", "2 + 2?"], "prompt": prompts}).write_parquet(
        tmp_path / "math_split" / "eval.parquet"
    )
    for name, first in (("base", "3"), ("adapter", "2")):
        answered = {
            "row_id": ["a", "b"],
            "question": ["1 + 1?", "2 + 2?"],
            "reference": ["2", "4"],
            "prediction": [first, "5"],
            "correct": [first == "2", False],
            "reason": ["the same" if first == "2" else "another", "another"],
        }
        pl.DataFrame(answered).write_parquet(tmp_path / f"{name}_evaluation" / "predictions.parquet")
    covered = {SOURCES[name].section for name in STAGE.inputs if name in SOURCES}
    return make_request(
        DeclaredRecipe(RECIPE, frozenset({*STAGE.recipe, *STAGE.labels, *covered}), STAGE.name),
        tracking_uri="sqlite:///x.db",
        artifact_root=None,
        versions=VERSIONS,
        folders={name: tmp_path / name for name in STAGE.inputs if name in STAGES},
        built_with=BUILT_WITH,
        comparison=COMPARISON,
        source="data set nvidia/... (revision main, split train)",
        tags={"fingerprint": "f00d"},
        costs={"qlora_adapter": {"gpu_seconds": 7.5, "usd": 0.1}, "model": {"gpu_seconds": 8.5, "usd": 0.0}},
    )


def test_what_is_served_is_the_pinned_base_with_the_stage_s_own_keys(request_made: RegistrationRequest) -> None:
    served = request_made.served
    spec = ModelSpec(**served["spec"])
    pinned = BaseCheckpoint(name="a/b", checkpoint="a/b", revision="c" * 40, version="commit:" + "c" * 40)
    assert (spec.backend, spec.base) == ("peft", pinned)
    assert (spec.quantization, spec.lora) == (RECIPE.quantization, RECIPE.lora)
    assert (spec.adapter, spec.quantized_bases) == (None, None)  # where they lay here is nothing that is served
    assert (served["max_new_tokens"], served["instruction"]) == (9, "Box it. ")
    assert served["max_batch"] == 16  # not the execution's, which is in no fingerprint
    assert request_made.example == {"question": "1 + 1?", "answer": "2"}


def test_the_parameters_are_those_that_are_tried_out_and_the_recipe_is_whole(
    request_made: RegistrationRequest,
) -> None:
    shown = {"split.seed": 5, "training.seed": 1, "lora.targets": "q_proj, k_proj"}
    about = {"base_model": "a/b", "data_set": "nvidia/Nemotron-RL-math-OpenMathReasoning", "trained_on": "answers"}
    assert request_made.params == about | shown
    assert request_made.about == about
    assert request_made.recipe == {**shown, "lora.targets": ["q_proj", "k_proj"], "filters.proof": True}


def test_the_tables_are_of_the_answers_that_changed(request_made: RegistrationRequest) -> None:
    [gained], [wrong] = request_made.tables["answers_gained"], request_made.tables["answers_still_wrong"]
    assert (gained["question"], gained["base's answer"], gained["adapter's answer"]) == ("1 + 1?", "3", "2")
    assert (wrong["question"], wrong["how the adapter's was graded"]) == ("2 + 2?", "another")
    assert "answers_lost" not in request_made.tables


SECOND = ("2 + 2?", "5", False)


def test_each_side_s_answers_are_a_table_of_the_same_columns(request_made: RegistrationRequest) -> None:
    before, after = (request_made.answers[name] for name in ("base", "adapter"))
    assert [(row["question"], row["answer"], row["right"]) for row in before] == [("1 + 1?", "3", False), SECOND]
    assert [(row["question"], row["answer"], row["right"]) for row in after] == [("1 + 1?", "2", True), SECOND]
    assert [*before[0]] == [*after[0]]
    assert [*before[0]][:2] == ["question", "answer"], "MLflow compares runs by the first column behind the question"


def test_figures_versions_and_names_go_where_they_belong(request_made: RegistrationRequest) -> None:
    figures = request_made.figures
    assert (figures["base"]["accuracy"], figures["adapter"]["accuracy"]) == (0.5, 1.0)
    assert figures["adapter"]["by_kind/integer/accuracy"] == 1.0
    candidate = request_made.candidate
    assert (candidate.split_version, candidate.adapter_version) == ("math_split-version", "qlora_adapter-version")
    assert len(candidate.held_out) == 16
    assert (request_made.model_name, request_made.gate) == ("quick", RECIPE.gate)
    assert request_made.metrics == {"cost/gpu_seconds": 8.5}, "of the whole model; each asset's stands in a table"
    assert request_made.tables["costs"] == [
        {"of": "qlora_adapter", "gpu seconds": 7.5, "usd": 0.1},
        {"of": "model", "gpu seconds": 8.5, "usd": 0.0},
    ]
    assert request_made.curve[-1] == {"step": 2, "training/tokens_per_s": 9.0, "training/seconds": 1.0}
    assert "1.25" in request_made.card  # the validation loss of the adapter that was kept, not the last one
    assert "cc-by-4.0" in request_made.card.lower()
