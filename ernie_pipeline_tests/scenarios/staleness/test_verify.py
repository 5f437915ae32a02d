"""A registered model, verified by the real command line: what no made-up home has, a model that answers, among it."""

import json
from typing import Any

import pytest

from ernie_pipeline_tests.scenarios.chain import finish, start_python
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace

MODEL = "models:/quick@challenger"


def ask(place: Workplace, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The command's exit status, and what it printed as JSON."""
    run = finish(start_python(["-m", "ernie_pipeline", *arguments, "--json"], place.home, place.recipe, place.code, {}))
    text = run.output
    return run.status, json.loads(text[text.index("\n{\n") if "\n{\n" in text else text.index("{") :])


def outcomes(values: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the steps by their outcome."""
    found: dict[str, list[str]] = {}
    for step in values["steps"]:
        found.setdefault(step["outcome"], []).append(step["name"])
    return found


def test_what_a_run_registered_is_verified_its_answers_made_again_and_promoted(built: Workplace) -> None:
    status, values = ask(built, "promote", MODEL, "--answers", "3")
    assert (status, outcomes(values).get("differs"), values["champion"]["before"]) == (0, None, None)
    assert outcomes(values)["unchecked"] == ["signature"]
    steps = {step["name"]: step["said"] for step in values["steps"]}
    assert steps["answers"] == "3 of 3 answers made again by peft on CPU, 1 threads are the same text"
    assert steps["provenance"].startswith("an in-toto statement about ")


@pytest.mark.long
def test_all_of_it_is_built_again_to_the_same_bytes(built: Workplace) -> None:
    status, values = ask(built, "verify", MODEL, "--rebuild")
    steps = {step["name"]: step["said"] for step in values["steps"] if step["name"].startswith("rebuild")}
    assert status == 0, values["sentence"]
    assert {name.removeprefix("rebuild ") for name in steps} == {
        "raw_nemotron",
        "math_split",
        "qlora_adapter",
        "base_evaluation",
        "adapter_evaluation",
    }
    assert all(said.endswith(": the same bytes") for said in steps.values())
