import polars as pl
import pytest

from ernie_pipeline.data.filters import DROPPED, FILTERS, apply_filters
from ernie_pipeline.recipe import Filters
from ernie_pipeline_tests.data.samples import frame

QUESTION = "What is 1 + 1, as a number?"
BOUNDS = Filters(min_question_chars=10, max_question_chars=40, max_answer_chars=5)


def dropped_as(*pairs: tuple[str | None, str | None]) -> list[tuple[int, str, str]]:
    _, dropped = apply_filters(frame(pairs), BOUNDS)
    return dropped.select("line", "filter", "reason").sort("line").rows()


@pytest.mark.parametrize(
    ("question", "answer", "name", "reason"),
    [
        (None, "2", "missing_question", "the question is empty"),
        (" \n", "2", "missing_question", "the question is empty"),
        (QUESTION, None, "missing_answer", "the answer is empty"),
        (QUESTION, "", "missing_answer", "the answer is empty"),
        (QUESTION, r"\( \)", "missing_answer", "the answer is empty"),
        (QUESTION, "2}", "unbalanced_answer", "the answer has a brace without its partner"),
        ("a" * 9, "2", "question_length", "the question has 9 characters, fewer than 10"),
        ("a" * 41, "2", "question_length", "the question has 41 characters, more than 40"),
        (QUESTION, "123456", "answer_length", "the answer has 6 characters, more than 5"),
        (None, None, "missing_question", "the question is empty"),
    ],
)
def test_each_drop_has_its_filter_and_its_reason(
    question: str | None, answer: str | None, name: str, reason: str
) -> None:
    assert dropped_as((question, answer)) == [(1, name, reason)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [("a" * 10, "2"), ("ä" * 40, "2"), (QUESTION, "12345"), (QUESTION, r"\(12345\)")],
    ids=["shortest", "longest in characters, not bytes", "longest answer", "delimiters do not count"],
)
def test_the_bounds_themselves_are_kept(question: str, answer: str) -> None:
    assert dropped_as((question, answer)) == []


@pytest.mark.parametrize(
    "again", [QUESTION.upper(), f"  {QUESTION}", QUESTION.replace(" ", "\n\t"), "What is \uff11 + 1, as a number?"]
)
def test_case_white_space_and_unicode_form_make_no_other_question(again: str) -> None:
    assert dropped_as((QUESTION, "2"), (again, "3")) == [(2, "exact_duplicate", "the same question as line 1")]


def test_the_first_line_of_a_duplicate_stays_in_any_order() -> None:
    rows = frame([(QUESTION, "2"), (QUESTION, "2"), ("Another question", "2")])
    kept, dropped = apply_filters(rows.reverse(), BOUNDS)
    assert sorted(kept["line"]) == [1, 3]
    assert dropped["line"].to_list() == [2]


def test_a_dropped_row_takes_no_duplicate_with_it() -> None:
    assert [drop[:2] for drop in dropped_as((QUESTION, ""), (QUESTION, "2"))] == [(1, "missing_answer")]


def test_every_row_is_kept_or_dropped_once() -> None:
    rows = frame([(QUESTION, "2"), (None, "2"), (QUESTION, "2"), ("short", "}"), ("Another question", "1234567")])
    kept, dropped = apply_filters(rows.lazy(), BOUNDS)
    assert sorted([*kept["line"], *dropped["line"]]) == [1, 2, 3, 4, 5]
    assert kept.columns == rows.columns
    assert tuple(dropped.columns) == DROPPED


def test_every_filter_says_why_it_drops() -> None:
    assert all(rule.__doc__ for rule in FILTERS)
    assert len({rule.__name__ for rule in FILTERS}) == len(FILTERS)


def test_no_rows_pass_through() -> None:
    kept, dropped = apply_filters(frame([]), BOUNDS)
    assert kept.is_empty()
    assert dropped.schema["reason"] == pl.String
