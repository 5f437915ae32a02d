"""The records of a set of problems, from a file of any form or from the hub at a commit, by the readers of rows."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from ernie_pipeline.data.read.formats import format_of, plain_ending
from ernie_pipeline.data.read.hub import load_hub
from ernie_pipeline.data.read.lines import BYTE_ORDER_MARK, utf_8_chunks
from ernie_pipeline.data.read.records import open_file
from ernie_pipeline.data.read.row_schema import RowProblem
from ernie_pipeline.utils.errors import PipelineError

LINES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
FORMATS = (*LINES, *(f"{ending}{packed}" for ending in LINES for packed in (".gz", ".zst")), ".parquet", ".arrow")
"""Endings of the names of such files."""

Record = tuple[int, dict[str, Any]]
"""Its line in a file of lines of JSON or text, else its number, from 1; and its columns."""


def hub_records(name: str, config: str | None, split: str, commit: str, called: str, cure: str) -> Iterator[Record]:
    """The records of a data set of the hub. Parameters and errors are those of `load_hub`."""
    rows = load_hub(name, config, split, commit, called, cure)
    return ((number, dict(row)) for number, row in enumerate(rows, start=1))


def file_records(path: Path, called: str) -> Iterator[Record]:
    """The records of a file in one of `FORMATS`; of plain text, each line is a "question".

    Raises `PipelineError` in a sentence that begins with what it is `called` and its path.
    """
    hint = "" if path.name.endswith(FORMATS) else f"; let it be one of {', '.join(FORMATS)}"
    try:
        if plain_ending(path) == ".txt":
            yield from ((number, {"question": line}) for number, line in enumerate(_lines(path), start=1))
            return
        rows = open_file(path, str(path)).rows
        yield from (
            (number, _columns(record, number))
            for number, record in (enumerate((r for _, r in rows), start=1) if format_of(path) == "csv" else rows)
        )
    except RowProblem as problem:
        raise PipelineError(f"{called} {path} cannot be read ({problem}){hint or '; correct the file'}") from problem
    except PipelineError as error:
        raise PipelineError(f"{called} {error}{hint}") from error  # it begins with the path
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, zstandard.ZstdError) as error:
        why = " ".join(str(error).split())[:300]
        raise PipelineError(f"{called} {path} cannot be read ({why}){hint or '; write it again'}") from error


def _lines(path: Path) -> list[str]:
    return b"".join(utf_8_chunks(path)).removeprefix(BYTE_ORDER_MARK).decode().replace("\r\n", "\n").split("\n")


def _columns(record: Any, number: int) -> dict[str, Any]:
    """Raises `RowProblem`, for half of a surrogate pair too, where some writers cut: no table can hold it."""
    if isinstance(record, RowProblem):
        raise RowProblem(f"row {number}:", str(record))
    if not isinstance(record, dict):
        raise RowProblem(f"row {number}:", "it is no object of columns")
    try:
        json.dumps(record, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise RowProblem(
            f"row {number}", "holds half of a surrogate pair, such as \\ud83d, which is no text"
        ) from error
    return record
