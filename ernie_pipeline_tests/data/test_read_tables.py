"""Rows that come as Parquet: its types, its nulls, what is broken in it, and the same outcome as row by row."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_pipeline.data.read.chunks import checked_chunk
from ernie_pipeline.data.read.row_schema import ROWS, check_record
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.data.read.table_rows import table_chunk
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import read_rows, record, records

INPUT = "responses_create_params.input"
TURN = pl.Struct({"role": pl.String, "content": pl.String})
TABLE = pl.Schema(
    {
        "responses_create_params": pl.Struct({"input": pl.List(TURN)}),
        "question": pl.String,
        "expected_answer": pl.String,
    }
)


def read(table: pl.DataFrame | pa.Table, path: Path, max_bad_rows: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Written in row groups of 3 and read again."""
    if isinstance(table, pl.DataFrame):
        table.write_parquet(path, row_group_size=3)
    else:
        pq.write_table(table, path, row_group_size=3)
    source = Source(kind="file", path=str(path), max_bad_rows=max_bad_rows)
    return read_rows(source, resolve_source(source))


def prompt(*turns: Any) -> dict[str, Any]:
    return {**record(), "responses_create_params": {"input": list(turns)}}


USER = {"role": "user", "content": "Solve"}
BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "null parameters": ({**record(), "responses_create_params": None}, "responses_create_params", "is null, not"),
    "null input": ({**record(), "responses_create_params": {"input": None}}, INPUT, "is null, not a list"),
    "an empty prompt": (prompt(), INPUT, "is an empty list"),
    "a null message": (prompt(USER, None), f"{INPUT}[1]", "is null, not an object"),
    "null content": (prompt({**USER, "content": None}), f"{INPUT}[0].content", "is null, not a string"),
    "null role in the second": (prompt(USER, {**USER, "role": None}), f"{INPUT}[1].role", "is null, not a string"),
    "NUL in the content": (prompt({**USER, "content": "a\0"}), f"{INPUT}[0].content", "holds a NUL character"),
    "NUL in the question": ({**record(), "question": "\0"}, "question", "holds a NUL character"),
    "NUL in the answer": (record(answer="1\0"), "expected_answer", "holds a NUL character"),
}


@pytest.mark.parametrize(("row", "field", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_left_out_and_named(tmp_path: Path, row: dict[str, Any], field: str, problem: str) -> None:
    table = pl.DataFrame([*records(3), row, record()], schema=TABLE)
    rows, bad = read(table, tmp_path / "a.parquet", max_bad_rows=1)
    assert rows["line"].to_list() == [1, 2, 3, 5]
    assert bad.select("line", "field").rows() == [(4, field)]
    assert bad["problem"][0].startswith(problem)
    with pytest.raises(PipelineError, match=re.escape(f"row 4: {field} {problem}")):
        read(table, tmp_path / "a.parquet")


def test_a_system_turn_several_turns_and_null_texts_are_read(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "2"}, USER]
    row = {**prompt(*turns), "question": None, "expected_answer": ""}
    rows, bad = read(pl.DataFrame([row], schema=TABLE), tmp_path / "a.parquet")
    assert rows.rows() == [(1, turns, None, "")]
    assert bad.is_empty()


def reordered(table: pl.DataFrame) -> pa.Table:
    """Messages with their keys in another order, and one more."""
    turn = pl.element().struct
    message = pl.struct(content=turn.field("content"), name=pl.lit(1), role=turn.field("role"))
    turns = pl.col("responses_create_params").struct.field("input").list.eval(message)
    return table.with_columns(pl.struct(tools=pl.lit("none"), input=turns).alias("responses_create_params")).to_arrow()


SPELLINGS = {
    "categories": lambda table: table.with_columns(pl.col("expected_answer").cast(pl.Categorical)).to_arrow(),
    "dictionary": lambda table: table.to_arrow().set_column(
        1, "question", table.to_arrow()["question"].cast(pa.string()).dictionary_encode()
    ),
    "keys in another order": reordered,
    "columns in another order": lambda table: table.select(reversed(table.columns)).to_arrow(),
    "32-bit offsets": lambda table: table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(
        pa.schema(
            [
                ("responses_create_params", pa.struct([("input", pa.list_(pa.struct(
                    [("role", pa.string()), ("content", pa.string())])))])),
                ("question", pa.string()),
                ("expected_answer", pa.string()),
            ]
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_the_same_rows_in_other_types_are_the_same_rows(tmp_path: Path, spell: Any) -> None:
    table = pl.DataFrame(records(7), schema=TABLE)
    rows, _ = read(table, tmp_path / "a.parquet")
    assert read(spell(table), tmp_path / "b.parquet")[0].equals(rows)


OTHER_TYPES = {
    "numbers as answers": ({"expected_answer": pl.lit(2)}, "expected_answer is a number, not a string"),
    "booleans as answers": ({"expected_answer": pl.lit(True)}, "expected_answer is a boolean, not a string"),
    "binary questions": ({"question": pl.lit(b"a")}, "question is bytes, not a string"),
    "dates as answers": ({"expected_answer": pl.date(2024, 1, 1)}, "expected_answer is date, not a string"),
    "lists as questions": ({"question": pl.concat_list("question")}, "question is a list, not a string"),
    "text as parameters": ({"responses_create_params": pl.lit("{}")}, "responses_create_params is a string, not an"),
    "no input": ({"responses_create_params": pl.struct(messages=pl.lit(1))}, f"{INPUT} is missing"),
    "text as input": ({"responses_create_params": pl.struct(input=pl.lit("a"))}, f"{INPUT} is a string, not a list"),
    "texts as messages": (
        {"responses_create_params": pl.struct(input=pl.concat_list("question"))},
        f"{INPUT}[0] is a string, not an object",
    ),
}


@pytest.mark.parametrize(("columns", "problem"), OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_a_column_of_another_type_is_told(tmp_path: Path, columns: dict[str, pl.Expr], problem: str) -> None:
    table = pl.DataFrame(records(4), schema=TABLE).with_columns(**columns)
    with pytest.raises(PipelineError, match=rf"4 broken rows .* \(row 1: {re.escape(problem)}"):
        read(table, tmp_path / "a.parquet")


def test_a_truncated_or_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    read(pl.DataFrame(records(3000), schema=TABLE), whole)
    content, path = whole.read_bytes(), tmp_path / "a.parquet"
    damaged = content[:500] + bytes(20_000) + content[20_500:]
    for broken in (content[:-1], content[: len(content) // 2], b"PAR1" + content[-8:], damaged):
        path.write_bytes(broken)
        source = Source(kind="file", path=str(path), max_bad_rows=10_000)
        with pytest.raises(PipelineError, match=rf"{path} (is not a readable|cannot be read after row \d+ )") as caught:
            read_rows(source, resolve_source(source))
        assert "write it again" in str(caught.value)


def with_bad_bytes(cast: pa.DataType) -> pa.Table:
    """Ten rows, of which the fourth has an answer, and the sixth a message, that is no UTF-8."""
    table = pl.DataFrame(records(10), schema=TABLE).to_arrow(compat_level=pl.CompatLevel.oldest())
    answers = pa.array([b"1", b"2", b"3", b"\xff4", *(b"5" for _ in range(6))], pa.large_binary())
    turns = table["responses_create_params"].to_pylist()
    contents = pa.array([f"{row}".encode() if row != 5 else b"ab\xe4" for row in range(10)], pa.large_binary())
    roles = pa.array([turn["input"][0]["role"] for turn in turns], pa.large_string())
    messages = pa.StructArray.from_arrays([roles, contents.view(pa.large_string())], names=["role", "content"])
    lists = pa.LargeListArray.from_arrays(pa.array(range(11), pa.int64()), messages)
    answer = answers.view(pa.large_string())
    table = table.set_column(0, "responses_create_params", pa.StructArray.from_arrays([lists], names=["input"]))
    return table.set_column(
        2, "expected_answer", answer.dictionary_encode() if pa.types.is_dictionary(cast) else answer
    )


@pytest.mark.parametrize("cast", [pa.large_string(), pa.dictionary(pa.int32(), pa.large_string())], ids=str)
def test_text_that_is_not_utf_8_is_one_broken_row(tmp_path: Path, cast: pa.DataType) -> None:
    table = with_bad_bytes(cast)
    rows, bad = read(table, tmp_path / "a.parquet", max_bad_rows=2)
    assert rows["line"].to_list() == [1, 2, 3, 5, 7, 8, 9, 10]
    assert rows["expected_answer"].to_list()[:3] == ["1", "2", "3"]
    assert bad.rows() == [
        (4, "expected_answer", "is not UTF-8 (byte 1 of the text)"),
        (6, f"{INPUT}[0].content", "is not UTF-8 (byte 3 of the text)"),
    ]
    with pytest.raises(PipelineError, match=r"has 2 broken rows .* \(row 4: expected_answer is not UTF-8 \(byte 1 of"):
        read(table, tmp_path / "a.parquet", max_bad_rows=1)


def test_when_all_rows_are_broken_it_says_that_and_why(tmp_path: Path) -> None:
    broken = pl.DataFrame([prompt(), record(answer="1\0"), prompt()], schema=TABLE)
    with pytest.raises(
        PipelineError, match=rf"all 3 rows are broken, 2 of them like row 1: {re.escape(INPUT)} is an empty list"
    ):
        read(broken, tmp_path / "a.parquet", max_bad_rows=3)


def test_a_parquet_file_without_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"a\.parquet holds no rows"):
        read(TABLE.to_frame(), tmp_path / "a.parquet")


TEXT = st.sampled_from(["", "a", "½", "\0", "a\0b", None])
TURNS = st.one_of(st.none(), st.fixed_dictionaries({"role": TEXT, "content": TEXT}))
PARAMETERS = st.one_of(st.none(), st.fixed_dictionaries({"input": st.one_of(st.none(), st.lists(TURNS, max_size=3))}))
TABLE_ROWS = st.lists(
    st.fixed_dictionaries({"responses_create_params": PARAMETERS, "question": TEXT, "expected_answer": TEXT}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TABLE_ROWS)
def test_by_column_is_as_row_by_row(rows: list[dict[str, Any]]) -> None:
    table = pl.DataFrame(rows, schema=TABLE)
    by_column, by_row = table_chunk(table, 5), checked_chunk(enumerate(rows, start=5), check_record)
    assert by_column.bad == by_row.bad
    assert by_column.rows.schema == ROWS
    assert by_column.rows.equals(by_row.rows)
