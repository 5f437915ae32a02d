"""Tables as Parquet, the same bytes for the same table, so that an unchanged table keeps its hash."""

import io
from pathlib import Path

import polars as pl


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write `table` to `path`; equal tables give equal bytes (with one version of Polars).

    Raises `OSError` when the disk is full.
    """
    buffer = io.BytesIO()  # not to the file: Polars 2.1 does not tell when its last bytes found no room there
    # Polars cuts pages where a column's chunks end, and how a frame came to be decides its chunks
    table.rechunk().write_parquet(buffer, compression="zstd")
    path.write_bytes(buffer.getbuffer())
