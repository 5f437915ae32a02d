"""Tables as Parquet, written row group by row group; the same rows give the same bytes, however they came."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 8192
"""Rows of a row group, which is what is held in memory of a table while it is written."""
OLDEST = pl.CompatLevel.oldest()  # the types that pyarrow writes


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write `table` to `path`; equal tables give equal bytes (with one version of pyarrow).

    Raises `OSError` when the disk is full.
    """
    with TableWriter(path, table.schema) as writer:
        writer.add(table)


class TableWriter:
    """A Parquet file that is written as its rows come. Leaving its context finishes the file.

    `check` is given each row group before it is written, and raises when that breaks its contract. The bytes depend on
    the rows alone, not on the tables in which they were added (with one version of pyarrow). A full disk raises
    `OSError`, at the latest on leaving.
    """

    def __init__(self, path: Path, schema: pl.Schema, check: Callable[[pl.DataFrame], object] | None = None):
        self._empty = schema.to_frame()
        self._check = check
        self._waiting = [self._empty]
        self._file = pa.OSFile(str(path), "wb")
        arrow_schema = self._empty.to_arrow(compat_level=OLDEST).schema
        self._writer = pq.ParquetWriter(self._file, arrow_schema, compression="zstd")

    def add(self, table: pl.DataFrame) -> None:
        """Put the rows of `table` below those added so far."""
        self._waiting.append(table)
        while sum(part.height for part in self._waiting) >= GROUP_ROWS:
            rows = pl.concat(self._waiting)
            self._write(rows[:GROUP_ROWS])
            self._waiting = [rows[GROUP_ROWS:]]

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            try:
                self._write(pl.concat(self._waiting))
                self._writer.close()
                self._file.close()
                return
            except BaseException:
                self._abandon()
                raise
        self._abandon()

    def _write(self, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        if self._check:
            self._check(rows)
        # as one piece: where a column's pieces end, its pages end; and a copy, as of lists that have been cut to these
        # rows all the values, those of the other rows too, are made into Arrow's type
        alone = rows.rechunk().select(pl.all().gather(pl.int_range(pl.len())))
        self._writer.write_table(alone.to_arrow(compat_level=OLDEST), GROUP_ROWS)

    def _abandon(self) -> None:
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError, pa.ArrowException):
            self._file.close()
