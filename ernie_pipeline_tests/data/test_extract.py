"""The reference answer out of a text: the docstrings' examples, and odd texts."""

import doctest

import pytest

from ernie_pipeline.data.read import extract
from ernie_pipeline.data.read.extract import answer_text, extract_answer


def test_the_examples_are_so() -> None:
    assert doctest.testmod(extract).attempted >= 5
    assert doctest.testmod(extract).failed == 0


@pytest.mark.parametrize(
    ("text", "how", "answer"),
    [
        (r"\boxed{1} and then \boxed{2}", "boxed", "2"),
        (r"\boxed{\frac{1}{2}", "boxed", None),
        ("a #### 1\n#### 2\n", "after ####", "2"),
        ("Answer: 5", "after Answer:", "5"),
        ("x = 3, y = 4", r"\w = (\d)", "4"),
        ("x = 3, y = 4", r"\d", "4"),
        ("x = 3", r"y = (\d)", None),
        ("x = ", r"x = (\d)?", None),
        ("", "", None),
    ],
)
def test_the_last_one_counts(text: str, how: str, answer: str | None) -> None:
    assert extract_answer(text, how) == answer


@pytest.mark.parametrize("value", [[1], {"a": 1}, float("nan"), float("inf"), False])
def test_what_is_no_text_and_no_number_gives_none(value: object) -> None:
    assert answer_text(value) is None


def test_a_large_integer_keeps_its_digits() -> None:
    assert answer_text(12345678901234567890123) == "12345678901234567890123"
