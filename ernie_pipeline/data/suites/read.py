"""The rows of a suite's set at its version: question, reference answer, level and subject of each."""

from collections.abc import Collection, Iterator
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ernie_pipeline.data.read.extract import what_is_wanted
from ernie_pipeline.data.read.set_records import Record, file_records, hub_records
from ernie_pipeline.data.suites.references import reference_answer
from ernie_pipeline.recipe.suites import SuiteColumns, SuiteSource
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.utils.errors import PipelineError

ROWS = pl.Schema(
    {
        "line": pl.Int64,
        "question": pl.String,
        "expected_answer": pl.String,
        "level": pl.String,
        "subject": pl.String,
    }
)
SHOWN = 80


class SuiteRows(NamedTuple):
    """`rows`: the table `ROWS`, in the set's order. `bad`: a clause for each row that was left out."""

    rows: pl.DataFrame
    bad: list[str]


def resolve_suite(name: str, source: SuiteSource) -> str:
    """The version of the suite `name`'s set: "sha256:<hex>" of a file, or the commit with config and split.

    Asks no network. Raises `PipelineError` for a file that cannot be read.
    """
    if source.dataset:
        config = f"{source.config}:" if source.config else ""
        return f"commit:{source.commit} {config}{source.split}"
    path = Path(source.path).expanduser().absolute()
    try:
        return f"sha256:{sha256_of(path)}"
    except OSError as error:
        raise PipelineError(
            f"suite {name}: the file {path} cannot be read ({error.strerror}); correct suites.{name}.source.path, or "
            "bring the file there"
        ) from error


def read_suite(name: str, source: SuiteSource, columns: SuiteColumns, version: str) -> SuiteRows:
    """The rows of the suite's set at `version`, which `resolve_suite` gave.

    Raises `PipelineError` when it cannot be read, lacks a column, has no rows, none with an answer, or more bad ones
    than `columns.max_bad_rows`; and when the file is not the one that was resolved.
    """
    rows, bad, seen = list[tuple[int, str, str, str | None, str | None]](), list[str](), dict[str, None]()
    for number, record in _records(name, source):
        seen |= dict.fromkeys(record)
        answered = record.get(columns.answer)  # a row of JSON may lack what others have
        question, answer = _question(record, columns), reference_answer(answered, columns.extract)
        if question is None:
            bad.append(f"row {number} has no question")
        elif answer is None:
            bad.append(f"row {number} has no reference answer: {_shown(answered)}")
        else:
            rows.append((number, question, answer, _label(record, columns.level), _label(record, columns.subject)))
    if source.path and resolve_suite(name, source) != version:  # asked after it was read
        raise PipelineError(f"suite {name}: the file {source.path} changed while in use; run again")
    if rows or bad:
        _check_columns(name, columns, seen)
    _check_rows(name, columns, len(rows), bad)
    return SuiteRows(pl.DataFrame(rows, schema=ROWS, orient="row"), bad)


def _records(name: str, source: SuiteSource) -> Iterator[Record]:
    if source.path:
        return file_records(Path(source.path).expanduser().absolute(), f"suite {name}: the file")
    cure = f"check the network, and config and split in suites.{name}.source"
    called = f"suite {name}: the data set {source.dataset}"
    return hub_records(source.dataset, source.config or None, source.split, source.commit, called, cure)


def _check_columns(name: str, columns: SuiteColumns, seen: Collection[str]) -> None:
    """Raise `PipelineError` for a column that is not among those `seen` in any row."""
    wanted = {"answer": columns.answer, "level": columns.level, "subject": columns.subject}
    keys = [("question", column) for column in _question_columns(columns)]
    for key, column in [*keys, *((key, column) for key, column in wanted.items() if column)]:
        if column not in seen:
            raise PipelineError(
                f"suite {name} has no column {column!r} among {', '.join(seen) or 'none'}; set suites.{name}.{key} "
                "to one of them"
            )


def _question_columns(columns: SuiteColumns) -> tuple[str, ...]:
    return (columns.question,) if isinstance(columns.question, str) else columns.question


def _question(record: dict[str, Any], columns: SuiteColumns) -> str | None:
    parts = [record.get(column) for column in _question_columns(columns)]
    texts = [part.strip() for part in parts if isinstance(part, str)]
    return " ".join(filter(None, texts)) or None if len(texts) == len(parts) else None


def _label(record: dict[str, Any], column: str) -> str | None:
    """A level or a subject as text; None where the row has none. Where some rows have none, tables hold the others'
    whole numbers as fractions (3.0), and what is missing as NaN."""
    value = record.get(column) if column else None
    if isinstance(value, float):
        value = None if not isfinite(value) else int(value) if value.is_integer() else value
    return None if value is None or not str(value).strip() else str(value).strip()


def _check_rows(name: str, columns: SuiteColumns, rows: int, bad: list[str]) -> None:
    if not rows and not bad:
        raise PipelineError(f"suite {name} is empty: its set has no rows; correct suites.{name}.source")
    if not rows:
        raise PipelineError(
            f"suite {name} has no row with a question and a reference answer ({bad[0]}): the column "
            f"{columns.answer!r} is to hold {what_is_wanted(columns.extract)}; correct suites.{name}.answer or .extract"
        )
    if len(bad) > columns.max_bad_rows:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise PipelineError(
            f"suite {name}: {bad[0]}{more}, where suites.{name}.max_bad_rows tolerates {columns.max_bad_rows}; correct "
            f"suites.{name}.answer or .extract, or raise it"
        )


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
