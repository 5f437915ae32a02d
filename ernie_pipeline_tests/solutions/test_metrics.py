"""What attempts come to: shares, intervals, pass at k, and each problem's class."""

from itertools import combinations

import pytest

from ernie_pipeline.grading.attempts import pass_at
from ernie_pipeline.grading.intervals import wilson
from ernie_pipeline.solutions.attempts import Attempt, chosen
from ernie_pipeline.solutions.metrics import histogram, problem_rows, summarise


def tried(row: str, *outcomes: str, round_: int = 1, kind: str = "integer") -> list[Attempt]:
    """Attempts by a letter each: r right, w wrong, u right but unboxed, t truncated, o timed out."""
    return [
        Attempt(
            row_id=row,
            question=f"question {row}",
            reference="1",
            kind=kind,
            round=round_,
            sample=number,
            text=f"text {number} of {round_}",
            tokens=number + 5,
            ended=each != "t",
            boxed=each not in "ut",
            extracted=None,
            outcome={"r": "correct", "u": "correct", "o": "timeout"}.get(each, "wrong"),
            reason="",
            strict=each == "r",
        )
        for number, each in enumerate(outcomes)
    ]


def test_problems_are_told_apart_by_how_often_they_were_solved() -> None:
    attempts = [*tried("a", *"rrrr"), *tried("b", *"rwtt"), *tried("c", *"wwut"), *tried("d", *"tttt")]
    rows = problem_rows(chosen(attempts, keep=2))
    assert [row["class"] for row in rows] == ["always", "sometimes", "never", "truncated"]
    assert [row["pass_rate"] for row in rows] == [1, 0.25, 0, 0]
    assert [row["truncated"] for row in rows] == [0, 2, 1, 4]
    assert [row["kept"] for row in rows] == [2, 1, 0, 0]


def test_the_figures() -> None:
    attempts = [*tried("a", *"rrrr"), *tried("b", *"rwtt", kind="set"), *tried("c", *"wwuo"), *tried("d", *"tttt")]
    attempts = chosen(attempts, keep=2)
    found = summarise(attempts, problem_rows(attempts))
    assert (found["problems"], found["attempts"], found["kept"]) == (4, 16, 3)
    assert (found["always"], found["sometimes"], found["never"], found["all_truncated"]) == (1, 1, 1, 1)
    assert (found["solved"], found["solved_share"], found["pass_rate"]) == (2, 0.5, 5 / 16)
    assert (found["truncated_share"], found["unboxed_share"], found["timeout_share"]) == (6 / 16, 7 / 16, 1 / 16)
    assert found["pass_at"] == {"1": 5 / 16, "2": (1 + 0.5) / 4, "4": 0.5}
    assert found["by_kind"]["set"] == {"attempts": 4, "pass_rate": 0.25}
    assert found["pass_rates"] == [2, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert found["pass_rate_low"] < 5 / 16 < found["pass_rate_high"]


def test_of_several_rounds_each_has_its_figures_and_the_last_ones_stand_for_the_model() -> None:
    attempts = chosen([*tried("a", *"wt"), *tried("b", *"rw"), *tried("a", *"rr", round_=2)], keep=9)
    attempts = chosen([*attempts, *tried("b", *"rr", round_=2)], keep=9)
    found = summarise(attempts, problem_rows(attempts))
    assert [each["pass_rate"] for each in found["rounds"]] == [0.25, 1.0]
    assert (found["round"], found["pass_rate"], found["attempts"]) == (2, 1.0, 4)
    assert (found["solved"], found["sometimes"], found["kept"]) == (2, 2, 5)


@pytest.mark.parametrize(("attempts", "right", "k"), [(5, 2, 1), (5, 2, 3), (5, 2, 5), (6, 0, 3), (6, 6, 1), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one(attempts: int, right: int, k: int) -> None:
    choices = [any(i < right for i in some) for some in combinations(range(attempts), k)]
    assert pass_at(attempts, right, k) == pytest.approx(sum(choices) / len(choices))


def test_wilson_s_interval_as_scipy_has_it() -> None:
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    for right, count in ((0, 5), (3, 10), (10, 10), (40, 400)):
        theirs = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right / count, count) == pytest.approx((theirs.low, theirs.high))


def test_the_histogram_has_both_ends() -> None:
    assert histogram([0.0, 0.05, 0.1, 0.95, 1.0]) == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
