"""Read the source's rows, each one checked by itself, from a file, the hub or the demo's generator, as a stream."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.data.read.chunks import CHUNK_ROWS, BadRow, Chunk, batches, checked_chunk
from ernie_pipeline.data.read.decode import LineDecoder
from ernie_pipeline.data.read.lines import is_array, numbered_lines
from ernie_pipeline.data.read.row_schema import BAD_ROWS, COLUMNS, check_record
from ernie_pipeline.data.read.source import describe_source, resolve_source, source_file
from ernie_pipeline.data.read.table_rows import arrow_chunk
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError, first_line

SHOWN_BAD_ROWS = 3
SHOWN_COLUMNS = 20
SHOWN_CHARACTERS = 80
RESEMBLANCE = 0.5
"""Of two names, as `difflib` measures it: "answer" stands for "expected_answer", "problem" for nothing."""


class Reading:
    """One pass over the rows of `source` at `version`, which `resolve_source` gave."""

    def __init__(self, source: Source, version: str):
        self._source = source
        self._version = version
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
        """Columns of the source beyond the schema, as seen so far, by name."""
        return sorted(map(_shown, self._columns.keys() - set(COLUMNS)))

    def _open(self) -> Iterator[Chunk]:
        source = self._source
        if source.kind == "demo":
            return _demo_chunks(source)
        if source.kind == "hub":
            return self._table_chunks(*_hub_tables(source, self._version.removeprefix("commit:")))
        path = source_file(source)
        if path.suffix == ".parquet":
            return self._table_chunks(*_parquet_tables(path))
        return map(LineDecoder(self._columns).chunk, batches(numbered_lines(path)))

    def _count(self, bad: list[BadRow]) -> None:
        for row in bad:
            kind = (row.field, re.sub(r"\d+", "0", row.problem))
            self._kinds[kind] += 1
            self._examples.setdefault(kind, row)

    def _table_chunks(self, columns: list[str], batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
        self._columns.update(dict.fromkeys(columns))
        if not set(COLUMNS) <= set(columns):
            return
        row = 0
        try:
            for batch in batches:
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
        if self._columns and not self._good and (missing := [key for key in COLUMNS if key not in self._columns]):
            raise PipelineError(_other_schema(name, missing, list(self._columns), self._bad))
        if self._bad > source.max_bad_rows:
            raise PipelineError(_too_many(source, self._bad, self._first_bad))
        if self._bad and not self._good:
            raise PipelineError(self._all_broken(name))
        if not self._good:
            raise PipelineError(f"{name} holds no rows; set source, or ERNIE_PIPELINE_SOURCE, to another")

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


def _parquet_tables(path: Path) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """(all column names, the tables of the columns wanted)."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # a row group can be as large as the file
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(f"{path} is not a readable Parquet file ({first_line(error)}); write it again") from error
    return list(file.schema_arrow.names), file.iter_batches(CHUNK_ROWS, columns=list(COLUMNS), use_threads=False)


def _hub_tables(source: Source, commit: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """As `_parquet_tables`."""
    import datasets  # seconds of imports that only this source needs
    import httpx

    try:
        rows = datasets.load_dataset(source.dataset, split=source.split, revision=commit)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, httpx.HTTPError) as error:
        raise PipelineError(
            f"{describe_source(source)} cannot be loaded at commit {commit} ({first_line(error)}); check the network "
            "and source.split, and set HF_TOKEN if the data set is gated or private"
        ) from error
    wanted = [name for name in COLUMNS if name in rows.column_names]
    tables = rows.select_columns(wanted).with_format("arrow").iter(CHUNK_ROWS)
    return list(rows.column_names), (batch for table in tables for batch in table.combine_chunks().to_batches())


def _other_schema(name: str, missing: list[str], columns: list[str], rows: int) -> str:
    if len(columns) == 1 and rows == 1:
        key = _shown(columns[0])
        return (
            f"{name} is one object with the key {key}, not rows; write the members of {key} one a line, or as one array"
        )
    others = [column for column in columns if column not in COLUMNS]
    near = {key: difflib.get_close_matches(key, others, n=1, cutoff=RESEMBLANCE) for key in missing}
    hints = [f"{key} may be {_shown(match[0])}" for key, match in near.items() if match]
    shown = ", ".join(map(_shown, columns[:SHOWN_COLUMNS]))
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    return (
        f"{name} has no column {' and no column '.join(missing)} (its columns: {shown}{more}"
        f"{''.join(f'; {hint}' for hint in hints)}): the source's schema has changed; rename its columns to "
        f"{', '.join(COLUMNS)}, or set source to another"
    )


def _shown(column: str) -> str:
    """A column's name as a line of text can hold it, whatever it is."""
    return repr(column[:SHOWN_CHARACTERS])[1:-1]


def _unit(source: Source) -> str:
    """What is numbered in the source."""
    if source.kind != "file" or source.path.endswith(".parquet"):
        return "row"
    return "row" if is_array(source_file(source)) else "line"


def _too_many(source: Source, count: int, first: list[BadRow]) -> str:
    unit = _unit(source)
    shown = "; ".join(f"{unit} {line}: {field} {problem}" for line, field, problem in first)
    more = f"; and {count - len(first)} more" if count > len(first) else ""
    return (
        f"{describe_source(source)} has {count} broken rows where source.max_bad_rows tolerates "
        f"{source.max_bad_rows} ({shown}{more}); correct them or raise source.max_bad_rows"
    )
