from pathlib import Path

import polars as pl
import pytest

from ernie_pipeline.data.tables.contracts import (
    BadRows,
    Ledger,
    RawRows,
    SplitRows,
    checked,
    polars_schema,
    read_checked,
)
from ernie_pipeline.utils.errors import PipelineError

LEDGER = pl.DataFrame(
    {
        "line": [1, 2],
        "place": ["train", "dropped"],
        "filter": [None, "proof"],
        "reason": [None, "asks for a proof"],
        "question": [None, "Prove it."],
        "expected_answer": [None, None],
    },
    schema=polars_schema(Ledger),
)


def error_of(table: pl.DataFrame, schema: type = Ledger) -> str:
    with pytest.raises(PipelineError) as caught:
        checked(schema, table, "ledger.parquet")
    return str(caught.value)


def test_a_table_that_keeps_to_its_contract_passes_as_it_is() -> None:
    assert checked(Ledger, LEDGER, "ledger.parquet") is LEDGER


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"place": pl.lit("lost")}, "line 1: place breaks check (it is 'lost')"),
        ({"line": pl.lit(0, pl.Int64)}, "line 0: line breaks"),
        ({"line": pl.lit(1, pl.Int64)}, "line 1: line breaks unique"),
        ({"question": pl.lit(""), "filter": pl.lit("")}, "line 1: breaks dropped_for_a_reason"),
        ({"reason": pl.lit(None, pl.String)}, "line 2: breaks dropped_for_a_reason"),
        ({"filter": pl.lit("proof")}, "line 1: breaks dropped_for_a_reason"),
        ({"place": pl.lit(None, pl.String)}, "line 1: place breaks nullability (it is None)"),
    ],
)
def test_a_bad_row_is_named_with_its_field(change: dict[str, pl.Expr], problem: str) -> None:
    message = error_of(LEDGER.with_columns(**change))
    assert message.startswith(f"ledger.parquet: {problem.split(' breaks')[0]}")
    assert problem in message


def test_how_many_rows_are_bad_is_told() -> None:
    assert "2 rows are bad, build the table again" in error_of(LEDGER.with_columns(place=pl.lit("lost")))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (LEDGER.drop("place"), "column place is missing"),
        (LEDGER.rename({"place": "end"}), "column place is missing; column end is unknown"),
        (LEDGER.with_columns(more=1), "column more is unknown"),
        (LEDGER.cast({"line": pl.Int32}), "column line is Int32, not Int64"),
    ],
)
def test_other_columns_are_told_from_bad_rows(table: pl.DataFrame, problem: str) -> None:
    assert error_of(table) == f"ledger.parquet is no table of Ledger: {problem}; build it again"


@pytest.mark.parametrize("schema", [RawRows, BadRows, SplitRows, Ledger])
def test_an_empty_table_keeps_to_every_contract(schema: type) -> None:
    assert checked(schema, pl.DataFrame(schema=polars_schema(schema)), "x").is_empty()


def test_messages_need_a_role_and_a_content() -> None:
    rows = pl.DataFrame(
        {"line": [1], "messages": [[{"role": "user", "content": None}]], "question": ["q"], "expected_answer": ["a"]},
        schema=polars_schema(RawRows),
    )
    assert "line 1: messages breaks" in error_of(rows, RawRows)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(PipelineError, match=r"train\.parquet is not a readable Parquet file .*; build it again"):
        read_checked(Ledger, file)
    with pytest.raises(PipelineError, match=r"absent\.parquet is not a readable Parquet file"):
        read_checked(Ledger, tmp_path / "absent.parquet")
    LEDGER.write_parquet(file)
    assert read_checked(Ledger, file).equals(LEDGER)
