"""Attempts from which nothing can be learnt: one sentence, with what would help."""

import pytest

from ernie_pipeline.recipe.sections import Solutions
from ernie_pipeline.solutions.attempts import Attempt
from ernie_pipeline.solutions.metrics import problem_rows, summarise
from ernie_pipeline.solutions.unusable import check_usable
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.solutions.test_metrics import tried

SETTINGS = Solutions(samples=4, keep=2, max_new_tokens=64)


def check(attempts: list[Attempt]) -> None:
    check_usable(summarise(attempts, problem_rows(attempts)), SETTINGS)


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ("tttt", "none of 8 attempts at 2 problems ended within solutions.max_new_tokens = 64 tokens; raise it"),
        ("oooo", "none of 8 attempts was graded within solutions.grading_timeout_s = 5 s; raise it, or give the "),
        (
            "wwww",
            "no problem of 2 is solved (pass rate 0.00% of 8 attempts), so there are no solutions to train on: r",
        ),
        (
            "uuuw",
            "no problem of 2 is solved (pass rate 0.00% of 8 attempts), so there are no solutions to train on: 7",
        ),
        (
            "tttw",
            "no problem of 2 is solved (pass rate 0.00% of 8 attempts), so there are no solutions to train on: 7",
        ),
    ],
)
def test_a_model_that_solves_nothing_is_told_with_what_would_help(outcomes: str, said: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check([*tried("a", *outcomes), *tried("b", *outcomes)])
    assert str(caught.value).startswith(said)


def test_one_solved_problem_cannot_both_teach_and_measure() -> None:
    with pytest.raises(PipelineError, match=r"^one problem alone of 3 is solved \(pass rate 8\.33% of 12 attempts\)"):
        check([*tried("a", *"rwww"), *tried("b", *"wwww"), *tried("c", *"wwww")])
    check([*tried("a", *"rwww"), *tried("b", *"wwwr"), *tried("c", *"wwww")])
