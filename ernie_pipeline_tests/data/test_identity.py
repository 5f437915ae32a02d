import polars as pl
import pytest

from ernie_pipeline.data.normalize.row_id import shuffle_keys, with_row_id
from ernie_pipeline.data.tables.contracts import RawRows, polars_schema

MESSAGES = [{"role": "user", "content": "What is 1 + 1?"}]
ROW = {"line": 1, "messages": MESSAGES, "question": "What is 1 + 1?", "expected_answer": "2"}


def ids(*rows: dict[str, object]) -> list[str]:
    return with_row_id(pl.DataFrame(rows, schema=polars_schema(RawRows)))["row_id"].to_list()


def test_the_id_is_the_same_on_every_machine_and_in_every_place() -> None:
    assert ids(ROW, {**ROW, "line": 9}) == ["4265fdfb747d6cee"] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"question": "What is 1 + 2?"},
        {"question": None},
        {"question": ""},
        {"expected_answer": "3"},
        {"expected_answer": None},
        {"messages": [{"role": "system", "content": "What is 1 + 1?"}]},
        {"messages": [*MESSAGES, {"role": "assistant", "content": ""}]},
        {"question": "What is 1 + 1?2", "expected_answer": ""},
    ],
)
def test_a_change_of_any_field_is_another_row(change: dict[str, object]) -> None:
    first, second = ids(ROW, {**ROW, **change})
    assert first != second


def test_null_and_empty_and_moved_borders_are_told_apart() -> None:
    other = [
        {**ROW, "question": None, "expected_answer": ""},
        {**ROW, "question": "", "expected_answer": None},
        {**ROW, "question": "", "expected_answer": ""},
        {**ROW, "question": None, "expected_answer": None},
        {**ROW, "messages": [{"role": "us", "content": "erx"}]},
        {**ROW, "messages": [{"role": "user", "content": "x"}]},
    ]
    assert len(set(ids(*other))) == len(other)


def test_places_are_a_random_order_of_the_seed() -> None:
    names = pl.Series([f"{i:016x}" for i in range(10_000)])
    first, second = shuffle_keys(names, 1), shuffle_keys(names, 2)
    assert first.n_unique() == second.n_unique() == 10_000
    order = first.arg_sort().to_numpy()
    assert abs(order[:1000].mean() - 5000) < 400  # ids in a row are far apart
    assert (first.arg_sort() == second.arg_sort()).sum() < 20
    assert shuffle_keys(names[:3], 3407).to_list() == [10103865392509140150, 13606470821070485387, 4938479739331343812]
