"""A table a piece at a time: what is computed of all its texts at once takes as much memory as they do."""

from collections.abc import Iterator

import polars as pl

SLICE_ROWS = 65_536
"""Not many fewer: each piece costs the time of compiling every pattern that it is searched for."""


def slices_of(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """`rows` from the first to the last, `SLICE_ROWS` at a time; one empty piece of an empty table."""
    yield from rows.iter_slices(SLICE_ROWS) if rows.height else (rows,)
