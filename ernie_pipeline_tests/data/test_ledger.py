import polars as pl
import pytest

from ernie_pipeline.data.tables.contracts import BadRows, polars_schema
from ernie_pipeline.data.tables.ledger import make_ledger, places_of, unaccounted
from ernie_pipeline.utils.errors import PipelineError

DROPPED = pl.DataFrame(
    {
        "line": [5],
        "question": ["Prove it."],
        "expected_answer": ["x"],
        "filter": ["proof"],
        "reason": ["asks for a proof"],
    }
)
BAD = pl.DataFrame({"line": [2], "field": ["question"], "problem": ["is missing"]}, schema=polars_schema(BadRows))


def part(*lines: int) -> pl.DataFrame:
    return pl.DataFrame({"line": lines, "answer": ["1"] * len(lines)})


PARTS = {"train": part(4, 1), "evaluation": part(3), "unused": part(6, 7)}


def test_every_row_ends_in_one_place_by_line() -> None:
    ledger = make_ledger(PARTS, DROPPED, BAD)
    assert ledger["line"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert ledger["place"].to_list() == ["train", "dropped", "evaluation", "train", "dropped", "unused", "unused"]
    assert places_of(ledger) == {"dropped": 2, "evaluation": 1, "train": 2, "unused": 2}


def test_what_was_dropped_is_kept_for_inspection_with_its_reason() -> None:
    ledger = make_ledger(PARTS, DROPPED, BAD)
    assert ledger.row(4) == (5, "dropped", "proof", "asks for a proof", "Prove it.", "x")
    assert ledger.row(1) == (2, "dropped", "broken_row", "question is missing", None, None)
    assert ledger["question"].drop_nulls().len() == 1


def test_a_row_in_two_places_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"the split's ledger: line 4: line breaks unique"):
        make_ledger({**PARTS, "unused": part(4)}, DROPPED, BAD)


@pytest.mark.parametrize(
    ("raw", "bad", "lost"),
    [([1, 3, 4, 5, 6, 7], [2], 0), ([1, 3, 4, 5, 6], [2], 1), ([1, 3, 4, 5, 6, 7, 8, 9], [2], 2), ([], [], 7)],
)
def test_rows_that_are_not_accounted_for_are_counted(raw: list[int], bad: list[int], lost: int) -> None:
    ledger = make_ledger(PARTS, DROPPED, BAD)
    assert unaccounted(ledger, pl.Series(raw, dtype=pl.Int64), pl.Series(bad, dtype=pl.Int64)) == lost


def test_a_row_that_stands_twice_in_the_source_is_not_accounted_for_by_one_entry() -> None:
    ledger = make_ledger(PARTS, DROPPED, BAD)
    assert unaccounted(ledger, pl.Series([1, 1, 3, 4, 5, 6, 7]), pl.Series([2])) == 1
