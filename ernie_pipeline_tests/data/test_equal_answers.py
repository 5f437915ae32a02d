r"""Answers that are equal beyond doubt have one form; all others keep theirs."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_pipeline.data.filter.filters import apply_filters
from ernie_pipeline.data.normalize.equal_answers import equal_form, rational
from ernie_pipeline.data.normalize.row_id import with_row_id
from ernie_pipeline.recipe.sections import Filters
from ernie_pipeline_tests.data.samples import frame

EQUAL = [
    [
        "1,625",
        "1625",
        "1{,}625",
        r"1{,}625.00",
        "$1625$",
        r"\(1625\)",
        "1625.",
        r"\frac{3250}{2}",
        "x=1625",
        r"n = 1,625",
    ],
    ["0.5", ".5", r"\frac12", r"\dfrac{1}{2}", r"\tfrac 12", "1/2", r"\frac{2}{4}", "x = 0.50", r"\frac1{2}", "+0.5"],
    ["-3/2", "-1.5", r"-\frac{3}{2}", r"\frac{-3}{2}", r"\frac{3}{-2}", "\u22121.5"],
    [r"\text{blue}", "blue", r"\mathrm{blue}"],
    [r"\left(1, 2\right)", "(1,2)", r"$(1,\, 2)$"],
    [r"y=3\sqrt{2}", r"3\sqrt{2}", r"3 \sqrt{2}"],
    [r"50\%", "50%"],
    ["x^{2}+1", "x^2 + 1"],
    ["0", "-0", "0.0", r"\frac{0}{7}"],
]
DIFFERENT = [
    ["5t", "5", "5\\%", "0.05", r"5\pi", "5^2", "x=5y", "5!", "505", "5,5"],
    ["x=5", "x>5", r"x\neq5", "x=5,y=2"],
    ["1,6", "1.6", "16"],
    ["1/0", r"\frac{1}{0}", "1"],
    ["12,34", "1234", "1,23,4"],
    ["(1,625)", "(1,626)"],
    ["AB", "A=B", "B"],
    ["x^{21}", "x^21"],
    ["1.2.3", "1.23"],
    [r"2\frac{1}{2}", r"\frac{1}{2}", r"\frac{21}{2}"],
    ["1/2/3", "1/6"],
]


def forms(answers: list[str]) -> list[str]:
    return pl.DataFrame({"answer": answers}).select(equal_form(pl.col("answer"))).to_series().to_list()


@pytest.mark.parametrize("answers", EQUAL, ids=lambda answers: answers[0])
def test_equal_answers_have_one_form(answers: list[str]) -> None:
    assert set(forms(answers)) == {forms(answers)[0]}


@pytest.mark.parametrize("answers", DIFFERENT, ids=lambda answers: answers[0])
def test_other_answers_have_other_forms(answers: list[str]) -> None:
    assert len(set(forms(answers))) == len(answers)


@given(st.fractions(-(10**9), 10**9, max_denominator=10**6), st.integers(1, 1000))
def test_a_number_is_what_it_is_in_whatever_terms(value: object, factor: int) -> None:
    top, below = value.numerator, value.denominator  # type: ignore[attr-defined]
    assert rational(f"{top * factor}/{below * factor}" if top >= 0 else f"-{-top * factor}/{below * factor}") == str(
        value
    )
    assert rational(rf"\frac{{{top * factor:,}}}{{{below * factor:,}}}") == str(value)


def test_nulls_and_long_digits_stay_as_they_are() -> None:
    assert forms(["9" * 5000, "9" * 5000 + ".0"]) == ["9" * 5000, "9" * 5000 + ".0"]
    assert (
        pl.DataFrame({"answer": [None]}, schema={"answer": pl.String}).select(equal_form(pl.col("answer"))).item()
        is None
    )


@pytest.mark.parametrize(
    ("question", "answers", "kept"),
    [
        ("How much is five squared times sixty-five?", ["1,625", "1625"], 1),
        ("Solve x+2=7 for the unknown.", ["x=5", "5"], 1),
        ("How long does it take, given the time t?", ["5t", "5"], 0),
    ],
)
def test_equal_answers_written_differently_are_no_conflict(question: str, answers: list[str], kept: int) -> None:
    rows = with_row_id(frame([(question, answer) for answer in answers]))
    left, dropped = apply_filters(rows, Filters())
    assert left.height == kept
    assert set(dropped["filter"]) == {"exact_duplicate" if kept else "conflicting_answers"}
