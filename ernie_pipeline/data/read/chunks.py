"""Checked rows as tables, a chunk at a time: what one chunk holds is all that is in memory of a source."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, islice
from typing import Any, NamedTuple, TypeVar

import polars as pl
import pyarrow as pa

from ernie_pipeline.data.read.row_schema import ROWS, RowProblem, SourceRow

T = TypeVar("T")

CHUNK_ROWS = 4096


class BadRow(NamedTuple):
    """A broken row: its line, and its first problem."""

    line: int
    field: str
    problem: str


class Chunk(NamedTuple):
    """Some rows of the source, in its order: the good ones (schema `ROWS`), and the broken ones."""

    rows: pl.DataFrame
    bad: list[BadRow]


def checked_chunk(records: Iterable[tuple[int, Any]], check: Callable[[Any], SourceRow]) -> Chunk:
    """The chunk of some (line, record), each record put through `check`, which raises `RowProblem`."""
    lines: list[int] = []
    rows: list[SourceRow] = []
    bad: list[BadRow] = []
    for line, record in records:
        try:
            rows.append(check(record))
        except RowProblem as problem:
            bad.append(BadRow(line, problem.field, problem.problem))
        else:
            lines.append(line)
    return Chunk(row_table(lines, rows), bad)


def batches(records: Iterable[T]) -> Iterator[list[T]]:
    """`records` in lists of `CHUNK_ROWS`; the last may be shorter."""
    rest = iter(records)
    while batch := list(islice(rest, CHUNK_ROWS)):
        yield batch


def row_table(lines: list[int], rows: list[SourceRow]) -> pl.DataFrame:
    """The table of `rows`, which stand in `lines`, of the schema `ROWS`.

    By columns, and the messages' list from its flat parts, with no objects of Python in between.
    """
    prompts = [row.responses_create_params.input for row in rows]
    messages = [message for prompt in prompts for message in prompt]
    texts = ([message.role for message in messages], [message.content for message in messages])
    flat = pa.StructArray.from_arrays([_arrow(text, pl.String) for text in texts], names=["role", "content"])
    ends = _arrow(list(accumulate(map(len, prompts), initial=0)), pl.Int64)
    columns = {
        "line": lines,
        "messages": pl.from_arrow(pa.LargeListArray.from_arrays(ends, flat)),
        "question": [row.question for row in rows],
        "expected_answer": [row.expected_answer for row in rows],
    }
    return pl.DataFrame(columns, schema=ROWS)


def _arrow(values: list[Any], dtype: type[pl.DataType]) -> pa.Array:
    """By way of Polars: `pa.array` imports pandas, 0.4 seconds and 50 MB that nothing else here needs."""
    return pl.Series(values, dtype=dtype).to_arrow(compat_level=pl.CompatLevel.oldest())
