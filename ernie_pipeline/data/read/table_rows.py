"""Rows that come as tables (Parquet, the hub): checked by column, and row by row where one is broken."""

import polars as pl

from ernie_pipeline.data.read.chunks import Chunk, checked_chunk
from ernie_pipeline.data.read.row_schema import COLUMNS, ROWS, check_record


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
