from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.normalize.row_id import with_row_id
from ernie_pipeline.data.split.divide import Division, divide
from ernie_pipeline.recipe.sections import Split
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import frame


def rows_of(count: int, kinds: Mapping[str, int] | None = None) -> pl.DataFrame:
    """`count` rows, each a group of its own; of `kinds` as many as said, integers else."""
    rows = with_row_id(frame((f"What is {i} + 0, as a number?", str(i)) for i in range(1, count + 1)))
    names = [kind for kind, size in (kinds or {}).items() for _ in range(size)]
    return rows.with_columns(group="row_id", kind=pl.Series([*names, *["integer"] * (count - len(names))]))


ROWS = rows_of(200)


def lines(table: pl.DataFrame) -> list[int]:
    return table["line"].to_list()


def shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    return rows.sample(fraction=1, shuffle=True, seed=seed)


def drops(unwanted: set[int], calls: list[int]) -> Any:
    """A decontamination that drops the rows of these lines and notes how many rows it looked at."""

    def decontaminate(rows: pl.DataFrame, evaluation: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        calls.append(rows.height)
        bad = pl.col("line").is_in(list(unwanted))
        columns = ["line", "question", "expected_answer"]
        dropped = rows.filter(bad).select(*columns, filter=pl.lit("evaluation_overlap"), reason=pl.lit("shares words"))
        return rows.filter(~bad), dropped

    return decontaminate


def test_the_reference_split_is_7600_and_400() -> None:
    parts = divide(rows_of(9000), Split(rows=8000, eval_fraction=0.05))
    assert (parts.train.height, parts.evaluation.height, parts.unused.height) == (7600, 400, 1000)


def test_the_parts_share_nothing_and_lose_nothing() -> None:
    parts = divide(ROWS, Split(rows=150))
    assert sorted([*lines(parts.train), *lines(parts.evaluation), *lines(parts.unused)]) == lines(ROWS)


def test_the_order_of_the_rows_does_not_matter() -> None:
    expected = divide(ROWS, Split(rows=100))
    for seed in range(3):
        found = divide(shuffled(ROWS, seed), Split(rows=100))
        assert found.train.equals(expected.train)
        assert found.evaluation.equals(expected.evaluation)
        assert found.unused.equals(expected.unused)


def test_the_split_is_the_one_of_this_seed_on_every_machine() -> None:
    assert lines(divide(ROWS, Split(eval_fraction=0.02)).evaluation) == [130, 87, 145, 174]


def test_another_seed_is_another_split() -> None:
    first, second = (set(lines(divide(ROWS, Split(seed=seed)).evaluation)) for seed in (1, 2))
    assert first != second


def test_a_row_that_goes_moves_no_other_row_of_training() -> None:
    before = divide(ROWS, Split())
    gone = before.train["line"][17]
    after = divide(ROWS.filter(pl.col("line") != gone), Split())
    assert lines(after.evaluation) == lines(before.evaluation)
    assert lines(after.train) == [line for line in lines(before.train) if line != gone]


def test_the_split_looks_random() -> None:
    held_out = lines(divide(ROWS, Split(eval_fraction=0.5)).evaluation)
    assert 80 < sum(held_out) / len(held_out) < 121


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_both_sides_get_a_row(fraction: float) -> None:
    parts = divide(ROWS[:2], Split(eval_fraction=fraction))
    assert (parts.train.height, parts.evaluation.height) == (1, 1)


def kinds_of(table: pl.DataFrame) -> dict[str, int]:
    return dict(table["kind"].value_counts().iter_rows())


def test_each_kind_of_answer_is_held_out_in_proportion() -> None:
    rows = rows_of(1000, {"fraction": 100, "text": 30})
    assert kinds_of(divide(rows, Split(eval_fraction=0.1)).evaluation) == {"integer": 87, "fraction": 10, "text": 3}
    by_chance = [kinds_of(divide(rows, Split(eval_fraction=0.1, stratify=False, seed=s)).evaluation) for s in range(5)]
    assert len({tuple(sorted(kinds.items())) for kinds in by_chance}) > 1


def test_a_group_is_never_divided() -> None:
    groups = ROWS.with_columns(group=ROWS["row_id"].gather([i - i % 4 for i in range(200)]))
    for seed in range(5):
        parts = divide(groups, Split(rows=120, eval_fraction=0.2, seed=seed))
        assert (parts.train.height, parts.evaluation.height) == (96, 24)
        assert set(parts.train["group"]).isdisjoint(parts.evaluation["group"])


def test_training_rows_that_overlap_are_replaced_and_told() -> None:
    plain = divide(ROWS, Split(rows=100))
    unwanted = set(lines(plain.train)[3:40])
    parts = divide(ROWS, Split(rows=100), drops(unwanted, []))
    assert lines(parts.evaluation) == lines(plain.evaluation)
    assert (parts.train.height, set(lines(parts.dropped))) == (95, unwanted)
    assert unwanted.isdisjoint(lines(parts.train))
    assert sorted(line for part in vars(parts).values() for line in lines(part)) == lines(ROWS)


def test_what_stands_behind_the_last_row_used_is_unused_whether_or_not_it_was_looked_at() -> None:
    rows = rows_of(2000)
    plain = divide(rows, Split(rows=100))
    behind = set(lines(plain.unused)[20:])
    calls: list[int] = []
    parts = divide(rows, Split(rows=100), drops(behind, calls))
    assert lines(parts.train) == lines(plain.train)
    assert (parts.dropped.height, lines(parts.unused)) == (0, lines(plain.unused))
    assert calls == [95 + 95 // 8 + 64]


def test_it_looks_further_until_there_are_enough() -> None:
    rows = rows_of(2000)
    calls: list[int] = []
    in_order = [*lines(divide(rows, Split(rows=100)).train), *lines(divide(rows, Split(rows=100)).unused)]
    parts = divide(rows, Split(rows=100), drops(set(in_order[:700]), calls))
    assert lines(parts.train) == in_order[700:795]
    assert set(lines(parts.dropped)) == set(in_order[:700])
    assert calls == sorted(calls)
    assert len(calls) > 1


def test_all_rows_are_used_where_the_recipe_names_no_number() -> None:
    unwanted = set(lines(divide(ROWS, Split()).train)[:30])
    parts = divide(ROWS, Split(), drops(unwanted, []))
    assert (parts.train.height, parts.evaluation.height, parts.unused.height, parts.dropped.height) == (160, 10, 0, 30)


def error_of(rows: pl.DataFrame, split: Split, *more: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        divide(rows, split, *more)
    return str(caught.value)


def test_fewer_rows_than_asked_for_shows_what_the_filters_dropped() -> None:
    counts = {"missing_answer": 7, "question_length": 0, "exact_duplicate": 60}
    message = error_of(ROWS, Split(rows=300), None, counts)
    assert "200 rows are left where the split needs 300" in message
    assert "(dropped by the filters: missing_answer 7, exact_duplicate 60)" in message


def test_too_few_rows_after_decontamination_say_so() -> None:
    unwanted = set(lines(divide(ROWS, Split()).train)[:100])
    message = error_of(ROWS, Split(rows=190), drops(unwanted, []), {"proof": 3})
    assert "where the split needs 190 (dropped by the filters: proof 3, evaluation_overlap 100)" in message


@pytest.mark.parametrize(("available", "left"), [(0, "0 rows are"), (1, "1 row is")])
def test_fewer_than_two_rows_cannot_be_divided(available: int, left: str) -> None:
    assert f"{left} left where the split needs 2" in error_of(ROWS[:available], Split())


def test_a_split_of_one_row_is_refused() -> None:
    assert "split.rows = 1 leaves nothing to train on" in error_of(ROWS, Split(rows=1))


def test_every_row_overlapping_leaves_nothing_to_train_on() -> None:
    assert "evaluation_overlap" in error_of(ROWS, Split(), drops(set(lines(ROWS)), []))


def test_a_division_names_its_parts() -> None:
    assert list(vars(divide(ROWS, Split()))) == list(Division.__dataclass_fields__)
