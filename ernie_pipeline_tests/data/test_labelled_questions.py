"""Questions with the filter that is to drop each, or "-"; each kind with its opposite, in labelled_questions.tsv."""

from pathlib import Path

import polars as pl
import pytest

from ernie_pipeline.data.filter.filters import apply_filters
from ernie_pipeline.recipe.sections import Filters
from ernie_pipeline_tests.data.samples import frame

LINES = (Path(__file__).parent / "labelled_questions.tsv").read_text(encoding="utf-8").splitlines()
QUESTIONS = [line.replace("¶", "\n").partition("\t")[::2] for line in LINES]
BOUNDS = Filters(min_question_chars=1)
"""The shortest ones are here for their language."""


def test_each_question_is_dropped_by_its_filter_or_kept() -> None:
    rows = frame([(question, "7") for _, question in QUESTIONS])
    ids = pl.Series("row_id", [f"{i:016x}" for i in range(rows.height)], pl.String)
    _, dropped = apply_filters(rows.with_columns(ids), BOUNDS)
    found = dict(dropped.select("question", "filter").iter_rows())
    wrong = [(wanted, found.get(question, "-"), question) for wanted, question in QUESTIONS]
    wrong = [row for row in wrong if row[0] != row[1]]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", ["multi_part", "multiple_choice", "proof", "reference", "non_english", "-"])
def test_there_are_questions_of_each_sort(name: str) -> None:
    assert sum(wanted == name for wanted, _ in QUESTIONS) >= 16
