"""The records of a set of problems, from a file of any form or from the hub at a commit."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ernie_pipeline.data.read.lines import numbered_lines
from ernie_pipeline.utils.errors import PipelineError

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".txt", ".txt.gz")

Record = tuple[int, dict[str, Any]]
"""Its line in a file of lines, else its number, from 1; and its columns."""


def hub_records(name: str, config: str | None, split: str, commit: str, called: str, cure: str) -> Iterator[Record]:
    """The records of a data set of the hub. `called` names it and `cure` says what to check, in an error's sentence.

    Raises `PipelineError` when it cannot be loaded.
    """
    import datasets  # seconds of imports that only such a set needs
    import httpx

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=commit)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, httpx.HTTPError) as error:
        raise PipelineError(f"{called} cannot be loaded at commit {commit} ({_shown(error)}); {cure}") from error
    return ((number, dict(row)) for number, row in enumerate(rows, start=1))


def file_records(path: Path, called: str) -> Iterator[Record]:
    """The records of a file in one of `FORMATS`; of plain text, each line is a "question".

    Raises `PipelineError` in a sentence that begins with what it is `called` and its path.
    """
    try:
        if path.name.endswith((".txt", ".txt.gz")):
            yield from ((number, {"question": line}) for number, line in enumerate(_text(path).split("\n"), start=1))
        elif path.name.endswith((".json", ".json.gz")):
            yield from _objects(path, called, _json_values(_text(path)))
        elif path.name.endswith((".csv", ".csv.gz")):
            yield from enumerate(pl.read_csv(path, infer_schema=False).iter_rows(named=True), start=1)
        elif path.name.endswith(".parquet"):
            yield from enumerate(pl.read_parquet(path).iter_rows(named=True), start=1)
        else:
            yield from _objects(path, called, ((number, _value(line, number)) for number, line in numbered_lines(path)))
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, ValueError, RecursionError, TypeError) as error:
        raise PipelineError(
            f"{called} {path} cannot be read ({_shown(error)}); let it be one of {', '.join(FORMATS)}"
        ) from error


def _text(path: Path) -> str:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read().decode("utf-8-sig").replace("\r\n", "\n")


def _json_values(text: str) -> Iterable[tuple[int, Any]]:
    """The members of one list, or a value a line."""
    if text.lstrip().startswith("["):
        return enumerate(_value(text), start=1)
    return ((number, _value(line, number)) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _value(text: str | bytes, number: int = 0) -> Any:
    """Of JSON. Raises `ValueError` for half of a surrogate pair too, where some writers cut: no table can hold it."""
    value = json.loads(text)
    if ("\\ud" in text.lower()) if isinstance(text, str) else (b"\\ud" in text.lower()):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            where = f"row {number}" if number else "a row"
            raise ValueError(f"{where} holds half of a surrogate pair, such as \\ud83d, which is no text") from error
    return value


def _objects(path: Path, called: str, records: Iterable[tuple[int, Any]]) -> Iterator[Record]:
    for number, record in records:
        if not isinstance(record, dict):
            raise PipelineError(f"{called} {path}, row {number}: it is no object of columns; correct the file")
        yield number, record


def _shown(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
