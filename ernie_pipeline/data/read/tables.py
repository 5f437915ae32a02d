"""Rows that come as tables, whole: a Parquet or Arrow file, or a data set of the hub at a commit."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.data.read.chunks import CHUNK_ROWS
from ernie_pipeline.data.read.hub import load_hub
from ernie_pipeline.data.read.source import describe_source
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError, first_line


class Table(NamedTuple):
    """`columns`: the names of all of them. `batches`: of those asked for, at most `CHUNK_ROWS` rows each."""

    columns: list[str]
    batches: Iterator[pa.RecordBatch]


def parquet_table(path: Path, wanted: Sequence[str] | None) -> Table:
    """The file's table, of the `wanted` columns that it has, None for all. Raises `PipelineError`."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # a row group can be as large as the file
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(f"{path} is not a readable Parquet file ({first_line(error)}); write it again") from error
    names = list(file.schema_arrow.names)
    return Table(names, file.iter_batches(CHUNK_ROWS, columns=_chosen(names, wanted), use_threads=False))


def arrow_table(path: Path, wanted: Sequence[str] | None) -> Table:
    """As `parquet_table`, of an Arrow file or stream (`datasets` writes streams)."""
    try:
        data = pa.memory_map(str(path))
        try:
            reader: Any = pa.ipc.open_file(data)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            data.seek(0)
            reader = pa.ipc.open_stream(data)
            batches = iter(reader)
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(f"{path} is not a readable Arrow file ({first_line(error)}); write it again") from error
    names = list(reader.schema.names)
    return Table(names, _sliced(batches, _chosen(names, wanted)))


def hub_table(source: Source, commit: str, wanted: Sequence[str] | None) -> Table:
    """As `parquet_table`, of the data set at `commit`."""
    cure = "check the network, source.config and source.split, and set HF_TOKEN if the data set is gated or private"
    rows = load_hub(source.dataset, source.config or None, source.split, commit, describe_source(source), cure)
    names = list(rows.column_names)
    tables = rows.select_columns(_chosen(names, wanted)).with_format("arrow").iter(CHUNK_ROWS)
    return Table(names, (batch for table in tables for batch in table.combine_chunks().to_batches()))


def _chosen(names: list[str], wanted: Sequence[str] | None) -> list[str]:
    return names if wanted is None else [name for name in wanted if name in names]


def _sliced(batches: Iterator[pa.RecordBatch], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        chosen = batch.select(columns)
        for start in range(0, chosen.num_rows, CHUNK_ROWS):
            yield chosen.slice(start, CHUNK_ROWS)
