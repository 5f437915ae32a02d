"""avg@n, pass@k and maj@k with their intervals, against what is counted by hand or by brute force."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from statistics import stdev

import pytest

from ernie_pipeline.evaluation.suites.attempts import Attempt
from ernie_pipeline.evaluation.suites.compare import changed_rows, compare
from ernie_pipeline.evaluation.suites.figures import figure, suite_figures, summarise
from ernie_pipeline.evaluation.suites.scores import RIGHT, Score, by_problem, majority, scores_of
from ernie_pipeline.grading.intervals import wilson

ATTEMPT = Attempt(
    row_id="",
    question="q?",
    reference="4",
    kind="integer",
    level="1",
    subject=None,
    sample=0,
    text="",
    tokens=1,
    ended=True,
    boxed=True,
    extracted="4",
    outcome="correct",
    reason="",
    correct=True,
    strict=True,
)


def attempts(row_id: str, *said: str | None, level: str = "1") -> list[Attempt]:
    """The greedy answer first, then the sampled ones; "4" is right."""
    return [
        replace(
            ATTEMPT,
            row_id=row_id,
            level=level,
            sample=sample,
            extracted=each,
            correct=each == "4",
            strict=each == "4",
            boxed=each is not None,
            outcome="correct" if each == "4" else "wrong",
        )
        for sample, each in enumerate(said)
    ]


SUITE = [
    *attempts("a", "4", "4", "4", "5", "4"),
    *attempts("b", "5", "5", "5 ", "4", "6"),
    *attempts("c", "7", "1", "2", None, "3", level="2"),
]


def test_the_figures_of_all_samples_are_the_shares_that_are_counted() -> None:
    found = summarise(SUITE)
    assert (found["problems"], found["samples"]) == (3, 4)
    assert found["greedy"]["value"] == pytest.approx(1 / 3)
    assert found["avg_at"].keys() == {"4"}
    assert found["avg_at"]["4"]["value"] == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert found["per_seed"] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert found["pass_at"]["4"]["value"] == pytest.approx(2 / 3)
    assert found["maj_at"]["4"]["value"] == pytest.approx(1 / 3)  # b: 5 twice, spelled otherwise
    assert found["unboxed_share"] == pytest.approx(1 / 15)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_the_mean_over_every_choice_of_k_answers(k: int) -> None:
    problems = [*by_problem(SUITE).values()]
    for problem, value in zip(problems, scores_of(problems)["pass"][k].values, strict=True):
        choices = [any(chosen) for chosen in combinations(problem.right, k)]
        assert value == pytest.approx(sum(choices) / len(choices))


@pytest.mark.parametrize(
    ("votes", "share"),
    [
        ([RIGHT, "5", RIGHT], 1.0),
        ([RIGHT, "5", "5"], 0.0),
        ([RIGHT, "5"], 0.5),
        ([RIGHT, "5", "6"], 1 / 3),
        ([None, None, RIGHT], 1.0),
        ([None, None], 0.0),
    ],
)
def test_the_majority_is_right_and_of_equals_each_counts_for_its_share(
    votes: Sequence[str | None], share: float
) -> None:
    assert majority(votes) == pytest.approx(share)


def test_maj_at_k_is_over_blocks_that_share_no_answer() -> None:
    problems = [*by_problem(SUITE).values()]
    assert scores_of(problems)["maj"][2].values == pytest.approx(((1 + 0.5) / 2, (0 + 0.5) / 2, 0))


def test_the_interval_over_problems_is_wilson_s() -> None:
    found = summarise(SUITE)["avg_at"]["4"]
    assert (found["low"], found["high"]) == pytest.approx(wilson(1 / 3, 3))


def test_the_interval_over_seeds_is_of_the_spread_of_the_seeds() -> None:
    suite = [*attempts("a", "4", "4", "4", "5"), *attempts("b", "4", "4", "5", "5")]
    found = summarise(suite)
    reach = 4.302652729911275 * stdev([1.0, 0.5, 0.0]) / 3**0.5  # Student's t at 97.5 %, two degrees of freedom
    expected = (max(0.0, 0.5 - reach), min(1.0, 0.5 + reach))
    for name, k in (("avg_at", "3"), ("pass_at", "1"), ("maj_at", "1")):  # all the same for one answer
        assert (found[name][k]["seeds_low"], found[name][k]["seeds_high"]) == pytest.approx(expected)
    assert found["greedy"]["seeds_low"] is None
    assert found["pass_at"]["3"]["seeds_low"] is None
    assert found["maj_at"]["2"]["seeds_low"] is None


def test_seeds_that_agree_leave_no_doubt_about_seeds_and_all_about_problems() -> None:
    found = summarise([*attempts("a", "4", "4", "4"), *attempts("b", "5", "5", "5")])["avg_at"]["2"]
    assert (found["seeds_low"], found["seeds_high"]) == (0.5, 0.5)
    assert found["high"] - found["low"] > 0.5


def test_nothing_sampled_gives_the_greedy_figures_alone() -> None:
    found = summarise([*attempts("a", "4"), *attempts("b", "5")])
    assert (found["avg_at"], found["pass_at"], found["maj_at"], found["per_seed"]) == ({}, {}, {}, [])
    assert found["by"]["level"]["1"]["greedy"] == figure(Score((1.0, 0.0)))
    with pytest.raises(ValueError, match="no attempts"):
        summarise([])


def test_each_level_has_its_figures_and_a_column_that_is_not_there_none() -> None:
    by = summarise([*SUITE, *attempts("d", "4", "4", "4", "4", "4", level="10")])["by"]
    assert [*by["level"]] == ["1", "2", "10"]  # as numbers
    assert by["level"]["1"]["problems"] == 2
    assert by["level"]["1"]["avg_at"]["value"] == pytest.approx(0.5)
    assert by["subject"] == {}
    assert [*by["kind"]] == ["integer"]


def test_the_levels_have_one_order_whatever_they_are_called() -> None:
    names = [*map(str, range(40)), "+nan", "-nan", "NAN", "NaN", "easy", "inf", "nan"]
    tried = [each for name in names[::-1] for each in attempts(f"of {name}", "4", level=name)]
    assert [*summarise(tried)["by"]["level"]] == names


def test_the_flat_figures_are_each_value_with_its_interval() -> None:
    found = suite_figures("mine", summarise(SUITE))
    assert found["mine/accuracy"] == pytest.approx(1 / 3)
    assert found["mine/pass_at_4"] == pytest.approx(2 / 3)
    assert {name.removesuffix("_low").removesuffix("_high") for name in found} == {
        f"mine/{name}"
        for name in (
            *("accuracy", "accuracy_strict", "avg_at_4"),
            *(f"{kind}_at_{k}" for kind in ("pass", "maj") for k in (1, 2, 4)),
        )
    }
    assert all(found[f"{name}_low"] <= found[name] <= found[f"{name}_high"] for name in found if f"{name}_low" in found)


BETTER = [
    *attempts("a", "4", "4", "4", "4", "4"),
    *attempts("b", "4", "5", "5", "5", "6"),
    *attempts("c", "4", "4", "2", None, "3", level="2"),
]


def test_gains_are_those_of_the_same_problems() -> None:
    found = compare(by_problem(SUITE), by_problem(BETTER), {"a"})
    rows = {row["figure"]: row for row in found["figures"]}
    assert (rows["greedy"]["base"], rows["greedy"]["adapter"]) == pytest.approx((1 / 3, 1.0))
    assert rows["avg@4"]["gain"] == pytest.approx((1 / 4 - 1 / 4 + 1 / 4) / 3)
    assert rows["avg@4"]["low"] <= rows["avg@4"]["gain"] <= rows["avg@4"]["high"]
    assert (found["better"], found["worse"]) == (2, 1)
    assert (found["paired"]["only_before"], found["paired"]["only_after"]) == (0, 2)
    assert {row["level"]: row["gain"] for row in found["by"]["level"] if row["figure"] == "greedy"} == {
        "1": pytest.approx(0.5),
        "2": pytest.approx(1.0),
    }
    without = found["contamination"]["figures_without"][0]
    assert (found["contamination"]["contaminated"], without["base"], without["adapter"]) == (1, 0.0, 1.0)


def test_what_got_better_and_worse_is_listed_with_both_answers() -> None:
    found = changed_rows(by_problem(SUITE), by_problem(BETTER), {"a"})
    told = [(row["row_id"], row["change"], row["contaminated"], row["base_answer"]) for row in found]
    assert told == [("a", "better", True, "4"), ("c", "better", False, "7"), ("b", "worse", False, "5")]


def test_models_that_agree_everywhere_leave_a_gain_that_may_have_been_missed() -> None:
    rows = compare(by_problem(SUITE), by_problem(SUITE), set())["figures"]
    assert all(row["gain"] == 0 and row["low"] < 0 < row["high"] for row in rows)
