"""The rows of a CSV or TSV file, plain or compressed, UTF-8 or UTF-16, as a stream: every value is text."""

import codecs
import csv
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from ernie_pipeline.data.read.formats import plain_ending
from ernie_pipeline.data.read.lines import check_format, utf_8_chunks
from ernie_pipeline.data.read.row_schema import RowProblem
from ernie_pipeline.utils.errors import PipelineError

SEPARATORS = (",", ";", "\t", "|")
LONGEST = 1 << 30
"""Characters that a value may have; the module's own limit is 128 Ki."""


def csv_records(path: Path) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """(the header's names, (line, record) of each row; a row with more or fewer values comes as a `RowProblem`).

    `line` is the one in which the row begins; the header's is 1. What parts the values is a tab in a TSV file, else
    the one of `SEPARATORS` that the header has most of. An empty file has no names and no rows.
    Raises `PipelineError` when the file cannot be read on, is neither UTF-8 nor UTF-16, or a quote is not closed.
    """
    csv.field_size_limit(LONGEST)
    rows = _rows(path)
    header = next(rows, None)
    names = [name.strip() for name in header[1]] if header else []
    if twice := {name for name in names if names.count(name) > 1}:
        raise PipelineError(f"{path} has two columns called {min(twice)!r}; rename one of them")
    return names, ((line, _record(names, values)) for line, values in rows)


def _record(names: list[str], values: list[str]) -> dict[str, str] | RowProblem:
    if len(values) == len(names):
        return dict(zip(names, values, strict=True))
    found = "1 value" if len(values) == 1 else f"{len(values)} values"
    return RowProblem("row", f"has {found} where the header has {len(names)} (a value with a separator needs quotes)")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, values) of each row that is not blank, the header first."""
    start = 1
    try:
        lines = _lines(path)
        first = next(lines, "")
        reader = csv.reader(_chain(first, lines), delimiter=_separator(path, first), strict=True)
        for values in reader:
            if values:
                yield start, values
            start = reader.line_num + 1
    except UnicodeDecodeError as error:
        line = _first_not_utf_8(path)
        raise PipelineError(f"{path} cannot be read at line {line} (it is not UTF-8; save it as UTF-8)") from error
    except (csv.Error, OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise PipelineError(f"{path} cannot be read at line {start} ({_why(error)})") from error


def _why(error: Exception) -> str:
    if isinstance(error, csv.Error):
        return f"{error}; a value with quotes in it needs quotes around it, and each of its own twice"
    return f"{error}; fetch the file again"


def _first_not_utf_8(path: Path) -> int:
    """The line of the first byte that is not UTF-8: lines are decoded many at a time."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    try:
        for chunk in utf_8_chunks(path):
            decoder.decode(chunk)
            line += chunk.count(b"\n")
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
    return line  # the last one, of a file that ends within a character


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _separator(path: Path, header: str) -> str:
    if plain_ending(path) == ".tsv":
        return "\t"
    return max(SEPARATORS, key=header.count)


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends, of whatever kind they are."""
    chunks = utf_8_chunks(path)
    head = next(chunks, b"")
    check_format(path, head, "lines of text")
    yield from io.TextIOWrapper(io.BufferedReader(_Chunks(head, chunks)), encoding="utf-8-sig", newline="")


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, head: bytes, rest: Iterator[bytes]):
        self._rest, self._held = rest, head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = next(self._rest, b"")
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count
