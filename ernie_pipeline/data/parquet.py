"""Tables as Parquet, the same bytes for the same table, so that an unchanged table keeps its hash."""

from pathlib import Path

import polars as pl


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write `table` to `path`; equal tables give equal bytes (with one version of Polars)."""
    # Polars cuts pages where a column's chunks end, and how a frame came to be decides its chunks
    table.rechunk().write_parquet(path, compression="zstd")
