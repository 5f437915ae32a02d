"""The artifact `raw_nemotron`: the source's rows as Parquet."""

from pathlib import Path

from ernie_pipeline.data.parquet import write_table
from ernie_pipeline.data.read import read_rows
from ernie_pipeline.recipe import Source


def write_raw(source: Source, version: str, out: Path) -> None:
    """Write `rows.parquet`, and `reports/bad_rows.parquet` with the rows left out. Errors as `read_rows`."""
    rows, bad_rows = read_rows(source, version)
    write_table(rows, out / "rows.parquet")
    (out / "reports").mkdir()
    write_table(bad_rows, out / "reports" / "bad_rows.parquet")
