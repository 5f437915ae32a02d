import polars as pl
import pytest

from ernie_pipeline.data.split import split_rows
from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Split
from ernie_pipeline_tests.data.samples import frame

ROWS = frame((f"What is {i} + 0, as a number?", str(i)) for i in range(1, 201))


def test_the_reference_split_is_7600_and_400() -> None:
    rows = frame((f"Question {i}", str(i)) for i in range(9000))
    train, held_out = split_rows(rows, Split(rows=8000, eval_fraction=0.05))
    assert (train.height, held_out.height) == (7600, 400)


def test_train_and_eval_share_nothing_and_lose_nothing() -> None:
    train, held_out = split_rows(ROWS, Split())
    assert sorted([*train["line"], *held_out["line"]]) == ROWS["line"].to_list()


def test_the_order_of_the_rows_does_not_matter() -> None:
    expected = split_rows(ROWS, Split(rows=100))
    for seed in range(3):
        shuffled = ROWS.sample(fraction=1, shuffle=True, seed=seed)
        assert all(a.equals(b) for a, b in zip(split_rows(shuffled, Split(rows=100)), expected, strict=True))


def test_the_split_is_the_one_of_this_seed_on_every_machine() -> None:
    _, held_out = split_rows(ROWS, Split(eval_fraction=0.02))
    assert held_out["line"].to_list() == [21, 101, 16, 173]


def test_another_seed_is_another_split() -> None:
    first, second = (set(split_rows(ROWS, Split(seed=seed))[1]["line"]) for seed in (1, 2))
    assert first != second


def test_a_new_row_moves_no_other_row() -> None:
    train, held_out = split_rows(ROWS, Split())
    fewer = ROWS.filter(pl.col("line") != 77)
    order = [*held_out["line"], *train["line"]]
    train, held_out = split_rows(fewer, Split())
    order.remove(77)
    assert [*held_out["line"], *train["line"]] == order


def test_the_split_looks_random() -> None:
    held_out = split_rows(ROWS, Split(eval_fraction=0.5))[1]["line"].to_list()
    assert 80 < sum(held_out) / len(held_out) < 121


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_both_sides_get_a_row(fraction: float) -> None:
    train, held_out = split_rows(ROWS[:2], Split(eval_fraction=fraction))
    assert (train.height, held_out.height) == (1, 1)


def test_row_ids_are_unique_and_follow_question_and_answer_alone() -> None:
    train, held_out = split_rows(ROWS, Split())
    ids = pl.concat([train, held_out]).select("line", "row_id")
    assert ids["row_id"].n_unique() == ROWS.height
    assert ids["row_id"].str.contains("^[0-9a-f]{16}$").all()
    other_answers = ROWS.with_columns(expected_answer=pl.lit("0"))
    assert set(ids["row_id"]).isdisjoint(split_rows(other_answers, Split())[0]["row_id"])
    moved, held_out = split_rows(ROWS.with_columns(line=pl.col("line") + 1000), Split(seed=1))
    assert set(ids["row_id"]) == {*moved["row_id"], *held_out["row_id"]}


def test_fewer_rows_than_asked_for_shows_what_the_filters_dropped() -> None:
    with pytest.raises(PipelineError) as caught:
        split_rows(ROWS, Split(rows=300), {"missing_answer": 7, "question_length": 0, "exact_duplicate": 60})
    message = str(caught.value)
    assert "200 rows are left where the split needs 300" in message
    assert "(dropped by the filters: missing_answer 7, exact_duplicate 60)" in message


@pytest.mark.parametrize("available", [0, 1])
def test_fewer_than_two_rows_cannot_be_divided(available: int) -> None:
    with pytest.raises(PipelineError, match=f"{available} rows are left where the split needs 2"):
        split_rows(ROWS[:available], Split())


def test_a_split_of_one_row_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"split.rows = 1 leaves nothing to train on"):
        split_rows(ROWS, Split(rows=1))
