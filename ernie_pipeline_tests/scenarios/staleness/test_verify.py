"""A registered model, verified by the real command line: what no made-up home has, a model that answers, among it."""

from typing import Any

from ernie_pipeline_tests.scenarios.chain import ask
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace

MODEL = "models:/quick@challenger"


def outcomes(values: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the steps by their outcome."""
    found: dict[str, list[str]] = {}
    for step in values["steps"]:
        found.setdefault(step["outcome"], []).append(step["name"])
    return found


def test_what_a_run_registered_is_verified_its_answers_made_again_and_promoted(built: Workplace) -> None:
    status, values = ask(["promote", MODEL, "--answers", "3"], built.home, recipe=built.recipe, ahead=built.code)
    assert (status, outcomes(values).get("differs"), values["champion"]["before"]) == (0, None, None)
    assert outcomes(values)["unchecked"] == ["signature"]
    steps = {step["name"]: step["said"] for step in values["steps"]}
    assert steps["answers"] == "3 of 3 answers made again by peft on CPU, 1 threads are the same text"
    assert steps["provenance"].startswith("an in-toto statement about ")
