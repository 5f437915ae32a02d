"""Read the source's rows, each one checked by itself, from a file, the hub or the demo's generator."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ernie_pipeline.data.lines import numbered_lines
from ernie_pipeline.data.rows import BAD_ROWS, ROWS, Row, RowProblem, check_line, check_record
from ernie_pipeline.data.source import describe_source, resolve_source, source_file
from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Source

SHOWN_BAD_ROWS = 3

Records = Iterable[tuple[int, Any]]
BadRow = tuple[int, str, str]


def read_rows(source: Source, version: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows, bad rows) of the source at `version`, which `resolve_source` gave.

    rows: `line` (1-based line of a JSONL file, else the row's number), `messages`, `question`, `expected_answer`.
    bad rows: `line`, `field`, `problem`, the first problem of each row that is left out.
    Raises `PipelineError` when there are more bad rows than `source.max_bad_rows`, when there are no rows, when the
    file is cut off, and when the source is no longer at `version`.
    """
    records, check = _open(source, version)
    rows, bad = _checked(records, check)
    if source.kind != "hub" and (now := resolve_source(source)) != version:
        raise PipelineError(f"{describe_source(source)} changed while in use ({version} is now {now}); run again")
    if len(bad) > source.max_bad_rows:
        raise PipelineError(_too_many(source, bad))
    if rows.is_empty():
        raise PipelineError(
            f"{describe_source(source)} holds no rows; set source, or ERNIE_PIPELINE_SOURCE, to another"
        )
    return rows, pl.DataFrame(bad, schema=BAD_ROWS, orient="row")


def _open(source: Source, version: str) -> tuple[Records, Callable[[Any], Row]]:
    if source.kind == "hub":
        return _numbered(_hub_records(source, version.removeprefix("commit:"))), check_record
    if source.kind == "demo":
        from ernie_pipeline.demo.problems import demo_rows

        return _numbered(demo_rows(source.rows, source.seed)), check_record
    path = source_file(source)
    if path.suffix == ".parquet":
        return _numbered(_parquet_records(path)), check_record
    return numbered_lines(path), check_line


def _numbered(records: Iterable[Any]) -> Records:
    return enumerate(records, start=1)


def _checked(records: Records, check: Callable[[Any], Row]) -> tuple[pl.DataFrame, list[BadRow]]:
    rows: list[tuple[Any, ...]] = []
    bad: list[BadRow] = []
    for line, record in records:
        try:
            rows.append((line, *check(record)))
        except RowProblem as problem:
            bad.append((line, problem.field, problem.problem))
    return pl.DataFrame(rows, schema=ROWS, orient="row"), bad


def _parquet_records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        frame = pl.scan_parquet(path)
        wanted = {"responses_create_params", "question", "expected_answer"}
        present = [name for name in frame.collect_schema().names() if name in wanted]
        # without any of them there is still a row to refuse for each row of the file
        yield from (frame.select(present) if present else frame).collect().iter_rows(named=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PipelineError(f"{path} is not a readable Parquet file ({_first_line(error)}); write it again") from error


def _hub_records(source: Source, commit: str) -> Iterable[dict[str, Any]]:
    import datasets  # seconds of imports that only this source needs
    import httpx

    try:
        records: Iterable[dict[str, Any]] = datasets.load_dataset(source.dataset, split=source.split, revision=commit)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, httpx.HTTPError) as error:
        raise PipelineError(
            f"{describe_source(source)} cannot be loaded at commit {commit} ({_first_line(error)}); check the network "
            "and source.split, and set HF_TOKEN if the data set is gated or private"
        ) from error
    return records


def _too_many(source: Source, bad: list[BadRow]) -> str:
    unit = "line" if source.kind == "file" and not source.path.endswith(".parquet") else "row"
    shown = "; ".join(f"{unit} {line}: {field} {problem}" for line, field, problem in bad[:SHOWN_BAD_ROWS])
    more = f"; and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else ""
    return (
        f"{describe_source(source)} has {len(bad)} broken rows where source.max_bad_rows tolerates "
        f"{source.max_bad_rows} ({shown}{more}); correct them or raise source.max_bad_rows"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
