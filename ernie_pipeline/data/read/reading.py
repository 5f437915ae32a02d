"""Read the source's rows, each one checked by itself, from a file, the hub or the demo's generator, as a stream."""

import re
from collections import Counter
from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from ernie_pipeline.data.read.chunks import BadRow, Chunk, batches, checked_chunk
from ernie_pipeline.data.read.csv_records import csv_records
from ernie_pipeline.data.read.decode import LineDecoder
from ernie_pipeline.data.read.formats import format_of
from ernie_pipeline.data.read.lines import is_array, numbered_lines
from ernie_pipeline.data.read.mapped import Columns, has_column
from ernie_pipeline.data.read.other_schema import csv_line, how_to_read, other_columns, shown_column
from ernie_pipeline.data.read.records import first_records, open_records
from ernie_pipeline.data.read.row_schema import BAD_ROWS, COLUMNS, check_record
from ernie_pipeline.data.read.source import describe_source, resolve_source, source_file
from ernie_pipeline.data.read.table_rows import arrow_chunk
from ernie_pipeline.data.read.tables import Table, arrow_table, hub_table, parquet_table
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError, first_line

SHOWN_BAD_ROWS = 3


class NoRows(PipelineError):
    """A source without any rows. `told`: the sentence without its advice."""

    def __init__(self, source: Source):
        self.told = f"{describe_source(source)} holds no rows{_what_else(source)}"
        super().__init__(f"{self.told}; set source, or ERNIE_PIPELINE_SOURCE, to another")


class Reading:
    """One pass over the rows of `source` at `version`, which `resolve_source` gave."""

    def __init__(self, source: Source, version: str):
        self._source = source
        self._version = version
        self._mapping = Columns.of(source)
        self._wanted = self._mapping.names if self._mapping else list(COLUMNS)
        self._columns: dict[str, None] = {}
        self._good = self._bad = 0
        self._first_bad: list[BadRow] = []
        self._kinds = Counter[tuple[str, str]]()
        self._examples: dict[tuple[str, str], BadRow] = {}

    def chunks(self) -> Iterator[Chunk]:
        """All rows in the source's order; each one's line is that of a JSONL file, else the row's number.

        Raises `PipelineError` at once when the file is cut off, and after the last chunk when the source is no longer
        at `version`, when it lacks a column, when there are more bad rows than `source.max_bad_rows`, and when there
        are no rows.
        """
        for chunk in self._open():
            self._good += chunk.rows.height
            self._bad += len(chunk.bad)
            self._first_bad += chunk.bad[: SHOWN_BAD_ROWS - len(self._first_bad)]
            if not self._good:
                self._count(chunk.bad)
            yield chunk
        self._accept()

    @property
    def columns_left_out(self) -> list[str]:
        """Columns of the source that are not read, as seen so far, by name."""
        read = {*self._wanted, *(name.partition(".")[0] for name in self._wanted)}
        return sorted(map(shown_column, self._columns.keys() - read))

    def _open(self) -> Iterator[Chunk]:
        source = self._source
        if source.kind == "demo":
            return _demo_chunks(source)
        if self._mapping:
            return self._mapped_chunks(self._mapping)
        if source.kind == "hub":
            return self._table_chunks(hub_table(source, self._version.removeprefix("commit:"), COLUMNS))
        path = source_file(source)
        form = format_of(path)
        if form == "parquet":
            return self._table_chunks(parquet_table(path, COLUMNS))
        if form == "arrow":
            return self._table_chunks(arrow_table(path, COLUMNS))
        if form == "csv":  # which cannot hold the schema's nested columns; what it has is told
            self._columns.update(dict.fromkeys(open_records(source, self._version).columns or ()))
            return iter(())
        return map(LineDecoder(self._columns).chunk, batches(numbered_lines(path)))

    def _mapped_chunks(self, columns: Columns) -> Iterator[Chunk]:
        records = open_records(self._source, self._version, self._outer())
        self._columns.update(dict.fromkeys(records.columns or ()))
        if records.columns is not None and self._missing():
            return
        for batch in batches(records.rows):
            if records.columns is None:
                self._columns.update(dict.fromkeys(key for _, row in batch if isinstance(row, dict) for key in row))
            yield checked_chunk(batch, columns.row)

    def _outer(self) -> list[str]:
        """The wanted columns, and those in which they may lie."""
        return list(dict.fromkeys([*self._wanted, *(name.partition(".")[0] for name in self._wanted)]))

    def _missing(self) -> list[str]:
        return [name for name in self._wanted if not has_column(self._columns, name)]

    def _count(self, bad: list[BadRow]) -> None:
        for row in bad:
            kind = (row.field, re.sub(r"\d+", "0", row.problem))
            self._kinds[kind] += 1
            self._examples.setdefault(kind, row)

    def _table_chunks(self, table: Table) -> Iterator[Chunk]:
        self._columns.update(dict.fromkeys(table.columns))
        if self._missing():
            return
        row = 0
        try:
            for batch in table.batches:
                yield arrow_chunk(batch, row + 1)
                row += batch.num_rows
        except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
            name = describe_source(self._source)
            raise PipelineError(
                f"{name} cannot be read after row {row} ({first_line(error)}); write it again"
            ) from error

    def _accept(self) -> None:
        source, name = self._source, describe_source(self._source)
        if source.kind != "hub" and (now := resolve_source(source)) != self._version:
            raise PipelineError(f"{name} changed while in use ({self._version} is now {now}); run again")
        if self._columns and not self._good and (missing := self._missing()):
            if not self._bad and not first_records(source, self._version, 1):
                raise NoRows(source)
            told = other_columns(name, missing, list(self._columns), self._bad, self._mapping)
            raise PipelineError(told + how_to_read(source, self._version))
        if self._bad and not self._good and (line := csv_line(source)):
            raise PipelineError(
                f'{name} holds no rows of JSON: its first line, "{line}", is that of a CSV file; let its name end in '
                ".csv or .tsv"
            )
        if self._bad > source.max_bad_rows:
            raise PipelineError(_too_many(source, self._bad, self._first_bad) + self._hint())
        if self._bad and not self._good:
            raise PipelineError(self._all_broken(name) + self._hint())
        if not self._good:
            raise NoRows(source)

    def _hint(self) -> str:
        """How else the rows could be read, where none of them was and it may be for that."""
        first = self._first_bad[0]
        whole = first.field == "row"
        a_number = first.field == "expected_answer" and "number" in first.problem
        if self._good or not (whole or a_number or self._mapping):
            return ""
        return how_to_read(self._source, self._version)

    def _all_broken(self, name: str) -> str:
        kind, count = self._kinds.most_common(1)[0]
        example = self._examples[kind]
        shown = f"{_unit(self._source)} {example.line}: {example.field} {example.problem}"
        if self._bad == 1:
            return f"{name}: the only row is broken ({shown}); correct it, or set source to another"
        like = "all" if count == self._bad else f"{count:,} of them"
        return f"{name}: all {self._bad:,} rows are broken, {like} like {shown}; correct them, or set source to another"


def bad_table(bad: list[BadRow]) -> pl.DataFrame:
    """Broken rows as a table of the schema `BAD_ROWS`."""
    return pl.DataFrame(bad, schema=BAD_ROWS, orient="row")


def _demo_chunks(source: Source) -> Iterator[Chunk]:
    from ernie_pipeline.demo.problems import demo_rows

    for batch in batches(enumerate(demo_rows(source.rows, source.seed), start=1)):
        yield checked_chunk(batch, check_record)


def _what_else(source: Source) -> str:
    """What is in a file in place of rows."""
    if source.kind != "file" or (form := format_of(source_file(source))) in ("parquet", "arrow"):
        return ""
    path = source_file(source)
    if not path.stat().st_size:
        return ": it is empty (0 bytes)"
    if form == "csv" and (names := csv_records(path)[0]):
        return f": it has a header ({', '.join(map(shown_column, names))}) and nothing below it"
    return ": its array is empty" if form == "json" and is_array(path) else ": it has nothing but blank lines"


def _unit(source: Source) -> str:
    """What is numbered in the source."""
    if source.kind != "file" or format_of(source_file(source)) in ("parquet", "arrow"):
        return "row"
    if format_of(source_file(source)) == "csv":
        return "line"
    return "row" if is_array(source_file(source)) else "line"


def _too_many(source: Source, count: int, first: list[BadRow]) -> str:
    unit = _unit(source)
    shown = "; ".join(f"{unit} {line}: {field} {problem}" for line, field, problem in first)
    more = f"; and {count - len(first)} more" if count > len(first) else ""
    rows = "row" if count == 1 else "rows"
    return (
        f"{describe_source(source)} has {count} broken {rows} where source.max_bad_rows tolerates "
        f"{source.max_bad_rows} ({shown}{more}); correct them or raise source.max_bad_rows"
    )
