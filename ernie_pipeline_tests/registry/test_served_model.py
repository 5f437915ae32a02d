import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.registry.model_folder import stage_code
from ernie_pipeline.registry.registration import RegistrationRequest
from ernie_pipeline.registry.serving.conversation import Settings
from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline.staleness.code import read_module
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.registry.conftest import DEMO, QUESTION

ENGINE = {
    f"ernie_pipeline.{module}"
    for module in (
        "models.grouped.backend",
        "models.grouped.quantize_checkpoint",
        "models.generation.decode",
        "models.generation.generate",
        "models.peft.backend",
        "registry.serving.agent_server",
        "registry.serving.answering",
        "registry.serving.scoring_server",
    )
}
"""What a served model loads."""


@pytest.fixture(scope="module")
def served_model() -> Any:
    from ernie_pipeline.registry import served_model

    return served_model


@pytest.fixture(scope="module")
def loaded(served_model: Any, make_request: Callable[..., RegistrationRequest], tmp_path_factory: Any) -> Any:
    """The model as MLflow makes it, without MLflow."""
    request = make_request()
    pins = tmp_path_factory.mktemp("pins") / "model.json"
    pins.write_text(json.dumps(request.served))
    model = served_model.ServedModel()
    artifacts = {"adapter": str(request.adapter), "served": str(pins)}
    model.load_context(type("Context", (), {"artifacts": artifacts}))
    return model


def test_questions_in_answers_out_greedy_by_default(loaded: Any) -> None:
    first = loaded.predict(None, [{"question": QUESTION}, {"question": "Compute 7 * 8."}])
    assert list(first.columns) == ["answer"]
    assert (
        first["answer"].tolist() == loaded.predict(None, {"question": [QUESTION, "Compute 7 * 8."]})["answer"].tolist()
    )


def test_a_seed_makes_sampling_repeatable(loaded: Any) -> None:
    def sample(seed: int) -> list[str]:
        params = {"temperature": 3.0, "seed": seed, "top_p": 1.0, "max_new_tokens": 24}
        return list(loaded.predict(None, {"question": [QUESTION] * 4}, params)["answer"])

    assert sample(1) == sample(1) != sample(2)


@pytest.mark.parametrize(
    "params",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 2048},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_a_parameter_out_of_range_is_the_callers_error(loaded: Any, params: dict[str, Any]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=f"{next(iter(params))} must be") as failure:
        loaded.predict(None, {"question": [QUESTION]}, params)
    assert failure.value.get_http_status_code() == 400


def test_messages_and_question_give_the_same_answer(loaded: Any) -> None:
    plain = [{"role": "user", "content": QUESTION}]
    as_trained = [{"role": "user", "content": INSTRUCTION + QUESTION}]
    rows = [{"question": QUESTION}, {"messages": plain}, {"messages": as_trained}]
    answers = loaded.predict(None, rows)["answer"].tolist()
    assert answers[0] == answers[1] == answers[2]
    # what MLflow makes of {"messages": [...]} alone: a row for each message
    assert loaded.predict(None, {"messages": plain})["answer"].tolist() == answers[:1]


def test_an_earlier_turn_is_read(loaded: Any) -> None:
    turns = [
        {"role": "user", "content": "Compute 1 + 1."},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": QUESTION},
    ]
    [prompt] = [loaded._prompt({"messages": turns}, Settings(24), "")]
    text = loaded.model.tokenizer.decode(prompt.tokens)
    assert text == f"<s>{INSTRUCTION}Compute 1 + 1. Answer:2</s>{QUESTION} Answer:"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"question": ""}], "question is empty"),
        ([{"question": QUESTION}, {"question": 12}], "row 1: question must be a string, not a number"),
        ({"question": [None]}, "give a question or messages, and not null"),
        ([{"question": QUESTION, "answer": "42"}], "unknown parameter 'answer'; known are question, messages"),
        ([], "the input has no rows: give at least one question"),
        (
            [{"question": "7" * 2024}],
            "at most 2,024 tokens fit: the model reads 2,048, less max_new_tokens 24",
        ),
        ([{"question": "7" * 45_000}], "has 45,0.* characters, and at most 2,024 tokens fit"),
        ([{"messages": [{"role": "user", "content": " "}]}], r"messages\[0\].content is empty"),
    ],
)
def test_a_question_that_cannot_be_answered_is_the_callers_error(loaded: Any, rows: Any, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence) as refusal:
        loaded.predict(None, rows)
    assert refusal.value.get_http_status_code() == 400
    assert set(json.loads(refusal.value.serialize_as_json())) == {"error_code", "message"}


def test_the_longest_conversation_that_fits_is_answered(loaded: Any) -> None:
    room = 2048 - 24 - len(loaded._prompt({"question": "7"}, Settings(24), "").tokens) + 1
    assert len(loaded.predict(None, [{"question": "7" * room}])) == 1
    with pytest.raises(Refusal, match="has 2,025 tokens, and at most 2,024"):
        loaded.predict(None, [{"question": "7" * (room + 1)}])


def test_a_changed_base_is_refused(served_model: Any, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(BASE, copy)
    base = {**DEMO, "name": str(copy), "checkpoint": str(copy)}
    assert served_model.pinned_checkpoint(base) == str(copy)
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    with pytest.raises(PipelineError, match=r"is not the one .* its content is sha256:.*, recorded is sha256:"):
        served_model.pinned_checkpoint(base)
    shutil.rmtree(copy)
    with pytest.raises(PipelineError, match=r"is not at .*; put that checkpoint back"):
        served_model.pinned_checkpoint(base)


def test_a_base_from_the_hub_is_pinned_by_its_commit(served_model: Any) -> None:
    base = {"name": "a/b", "checkpoint": "a/b", "revision": "c" * 40, "version": "commit:" + "c" * 40}
    assert served_model.pinned_checkpoint(base) == "a/b"


def test_the_demo_base_is_the_installed_one_wherever_it_was_trained(served_model: Any) -> None:
    assert served_model.pinned_checkpoint({**DEMO, "checkpoint": "/a/machine/far/away"}) == str(BASE)


def test_the_staged_code_is_all_that_the_engine_needs(tmp_path: Path) -> None:
    """What its modules import, inside functions too: here an editable install would find what the copy lacks."""
    folder = stage_code(tmp_path)
    files = [file.relative_to(tmp_path).with_suffix("") for file in folder.rglob("*.py")]
    staged = {".".join(file.parts).removesuffix(".__init__") for file in files}
    imported = {name for module in staged if (code := read_module(module)) for name in code.imports}
    assert {name for name in imported if read_module(name)} | ENGINE <= staged
    assert not list(folder.rglob("*.safetensors"))
