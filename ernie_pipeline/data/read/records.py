"""Rows as they stand in the source, decoded and not yet checked: from a file of any form, or from the hub."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from ernie_pipeline.data.read.csv_records import csv_records
from ernie_pipeline.data.read.formats import format_of
from ernie_pipeline.data.read.lines import numbered_lines
from ernie_pipeline.data.read.row_schema import RowProblem, parse_line
from ernie_pipeline.data.read.source import describe_source, source_file
from ernie_pipeline.data.read.table_rows import decoded_records
from ernie_pipeline.data.read.tables import Table, arrow_table, hub_table, parquet_table
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError, first_line

MOST_DIGITS = 4000
"""Python converts a few hundred more, and no answer has as many."""


class Records(NamedTuple):
    """`columns`: their names where the source says them once for all rows, else None.

    `rows`: (line, record) of each row, a `RowProblem` in the place of a record that cannot be decoded.
    """

    columns: list[str] | None
    rows: Iterator[tuple[int, Any]]


def open_records(source: Source, version: str, wanted: Sequence[str] | None = None) -> Records:
    """The records of a file or a hub data set at `version`; of tables, the `wanted` columns alone (None: all).

    `line` is that of a file of lines, else the row's number. Raises `PipelineError` for what cannot be read on.
    """
    if source.kind == "hub":
        return _of_table(describe_source(source), hub_table(source, version.removeprefix("commit:"), wanted))
    return open_file(source_file(source), describe_source(source), wanted)


def open_file(path: Path, called: str, wanted: Sequence[str] | None = None) -> Records:
    """The records of a file, as `open_records`; `called`: what it is, in the sentence of an error on the way."""
    form = format_of(path)
    if form == "csv":
        return Records(*csv_records(path))
    if form == "parquet":
        return _of_table(called, parquet_table(path, wanted))
    if form == "arrow":
        return _of_table(called, arrow_table(path, wanted))
    return Records(None, ((number, _decoded(line)) for number, line in numbered_lines(path)))


def first_records(source: Source, version: str, count: int) -> list[dict[str, Any]]:
    """Some of the first records, those that are objects; [] where none can be read."""
    try:
        rows = list(islice(open_records(source, version).rows, count))
    except PipelineError:
        return []
    return [record for _, record in rows if isinstance(record, dict)]


def _of_table(called: str, table: Table) -> Records:
    return Records(table.columns, _numbered(called, table.batches))


def _numbered(called: str, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Any]]:
    row = 0
    try:
        for batch in batches:
            for record in _table_records(batch):
                row += 1
                yield row, record
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise PipelineError(f"{called} cannot be read after row {row} ({first_line(error)}); write it again") from error


def _table_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return decoded_records(batch)
    records: list[dict[str, Any]] = batch.to_pylist()
    return records


def _decoded(line: bytes) -> Any:
    """What a line of JSON holds, or the `RowProblem` with it; an integer keeps its digits."""
    try:
        return json.loads(line.decode(), parse_int=_integer)
    except (ValueError, RecursionError):
        pass
    try:
        return parse_line(line)  # which says what is wrong
    except RowProblem as problem:
        return problem


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < MOST_DIGITS else float(digits)
