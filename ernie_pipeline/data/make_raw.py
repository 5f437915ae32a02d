"""The artifact `raw_nemotron`: the source's rows as Parquet."""

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ernie_pipeline.data.read.chunks import Chunk
from ernie_pipeline.data.read.reading import Reading, bad_table
from ernie_pipeline.data.read.row_schema import BAD_ROWS, ROWS
from ernie_pipeline.data.tables.contracts import BadRows, RawRows, checked
from ernie_pipeline.data.tables.parquet import TableWriter
from ernie_pipeline.recipe.sections import Source

CHUNKS_AHEAD = 2
"""Read and not written yet, at most."""


def write_raw(source: Source, version: str, out: Path) -> None:
    """Write `rows.parquet` (schema `RawRows`) and `bad_rows.parquet` (`BadRows`, the rows left out), as they are read.

    `reports/columns.json` lists the source's columns beyond the schema: {"left_out": [names]}. A row group at a time is
    in memory, and checked against its contract; no line comes twice, as the source is read once. Errors as
    `Reading.chunks`.
    """
    good, broken = out / "rows.parquet", out / "bad_rows.parquet"
    reading = Reading(source, version)
    with (
        TableWriter(good, ROWS, partial(checked, RawRows, where=str(good))) as rows,
        TableWriter(broken, BAD_ROWS, partial(checked, BadRows, where=str(broken))) as bad,
        ThreadPoolExecutor(1) as writer,  # Arrow writes while Python reads on
    ):

        def write(chunk: Chunk) -> None:
            rows.add(chunk.rows)
            bad.add(bad_table(chunk.bad))

        waiting = deque[Future[None]]()
        for chunk in reading.chunks():
            waiting.append(writer.submit(write, chunk))
            if len(waiting) > CHUNKS_AHEAD:
                waiting.popleft().result()
        for written in waiting:
            written.result()
    (out / "reports").mkdir()
    columns = {"left_out": reading.columns_left_out}
    (out / "reports" / "columns.json").write_text(json.dumps(columns, indent=1) + "\n")
