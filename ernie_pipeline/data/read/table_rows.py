"""Rows that come as tables (Parquet, the hub): checked by column, and row by row where one is broken."""

from typing import Any

import polars as pl
import pyarrow as pa

from ernie_pipeline.data.read.chunks import Chunk, checked_chunk
from ernie_pipeline.data.read.row_schema import COLUMNS, ROWS, NotUtf8, check_record


def arrow_chunk(batch: pa.RecordBatch, first: int) -> Chunk:
    """`table_chunk` of an Arrow batch. Text that is not UTF-8, which Polars takes for granted, makes its row broken.

    Raises `pa.ArrowException` when the batch is damaged otherwise.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return checked_chunk(enumerate(decoded_records(batch), start=first), check_record)
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return table_chunk(frame, first)


def decoded_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows, with `NotUtf8` where a text is none."""
    columns = [
        (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).cast(_with_bytes(field.type))
        for column, field in zip(batch.columns, batch.schema, strict=True)
    ]
    whole = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    whole.validate(full=True)
    texts = {field.name for field in batch.schema if _with_bytes(field.type) != field.type}
    return [
        {name: _decoded(value) if name in texts else value for name, value in row.items()} for row in whole.to_pylist()
    ]


def _with_bytes(of: pa.DataType) -> pa.DataType:
    """The type with bytes for text, on every level."""
    if pa.types.is_dictionary(of):
        return _with_bytes(of.value_type)
    if pa.types.is_string(of):
        return pa.binary()
    if pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return pa.large_binary()
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return (pa.list_ if pa.types.is_list(of) else pa.large_list)(_with_bytes(of.value_type))
    if pa.types.is_struct(of):
        return pa.struct([(field.name, _with_bytes(field.type)) for field in of])
    return of


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            return NotUtf8(error.start + 1)
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    return value


def table_chunk(table: pl.DataFrame, first: int) -> Chunk:
    """The chunk of `table`, which has `COLUMNS` and whose rows are numbered from `first`.

    The outcome is that of `check_record` for each row.
    """
    lines = pl.int_range(first, first + table.height, dtype=pl.Int64, eager=True).alias("line")
    try:
        rows = table.select(_messages(), "question", "expected_answer").insert_column(0, lines)
    except pl.exceptions.PolarsError:  # a column of another type
        rows = None
    if rows is not None and rows.schema == ROWS and rows.select(_are_good()).item():
        return Chunk(rows, [])
    return checked_chunk(zip(lines, table.select(COLUMNS).iter_rows(named=True), strict=True), check_record)


def _messages() -> pl.Expr:
    turn = pl.element().struct
    message = pl.struct(turn.field("role"), turn.field("content"))
    return pl.col("responses_create_params").struct.field("input").list.eval(message).alias("messages")


def _are_good() -> pl.Expr:
    turn, messages = pl.element().struct, pl.col("messages")
    whole = _is_text(turn.field("role")) & _is_text(turn.field("content"))
    texts = [pl.col(name).is_null() | _is_text(pl.col(name)) for name in ("question", "expected_answer")]
    prompt = (messages.list.len() > 0) & messages.list.eval(whole).list.all()
    return pl.all_horizontal(prompt.fill_null(False), *texts).all()


def _is_text(text: pl.Expr) -> pl.Expr:
    return text.is_not_null() & ~text.str.contains("\0", literal=True).fill_null(False)
