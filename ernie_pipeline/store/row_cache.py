"""What was made row by row and dearly, kept by row: so that a changed row costs one row, and a killed run none.

A set is a folder below `FOLDER` in the store, named by all that decides a row's outcome besides the row. Each process
appends lines to a file of its own, one as soon as a row is done. A line that is cut off or altered is as good as not
there: its row is made again.
"""

import json
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from pydantic import Field, JsonValue

from ernie_pipeline.recipe.section import Section
from ernie_pipeline.store.aside import make_way
from ernie_pipeline.store.readable import NOT_READABLE, parse_json, read_file
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence, is_disk_full

FOLDER = ".rows"
"""Where the sets are in the store: `<16 hex digits>/` each, with the file `ABOUT` and `<32 hex digits>.jsonl`."""
ABOUT = "about.json"
"""What the rows of a set have in common, for a person; its modification time is when the set was last used."""

Tokens = list[int]


class KeptRows(Section):
    """Which set a process reads and adds to. `about`: what its rows have in common, for a person."""

    folder: Path
    about: dict[str, JsonValue] = Field(default_factory=dict)


class RowCache:
    """A set that is open: what it holds, and a file of this process's own to which `keep` adds."""

    def __init__(self, known: Mapping[str, Tokens], folder: Path, lines: TextIO):
        self._known, self._folder, self._lines = dict(known), folder, lines

    def get(self, key: str) -> Tokens | None:
        """The tokens kept for a row, None if there are none."""
        return self._known.get(key)

    def keep(self, key: str, tokens: Tokens) -> None:
        """Keep a row's tokens: they outlive this process from now on. Raises `PipelineError` when the disk is full."""
        self._known[key] = tokens
        text = json.dumps([key, tokens], separators=(",", ":"))
        try:
            self._lines.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
            self._lines.flush()
        except OSError as error:
            if is_disk_full(error):
                raise PipelineError(f"kept answers: {disk_full_sentence(str(self._folder))}") from error
            raise


@contextmanager
def open_rows(kept: KeptRows | None) -> Iterator[RowCache]:
    """The set that is named, made where it is not there; for None one that is gone when this process is.

    Others may have it open at the same time: each reads what the others had kept before it began.
    """
    if kept is None:
        with TemporaryDirectory() as temporary, open_rows(KeptRows(folder=Path(temporary))) as rows:
            yield rows
        return
    folder = kept.folder
    about = make_way(folder / ABOUT, below=folder.parent.parent)
    known = read_rows(folder)
    about.write_text(json.dumps(kept.about, indent=1) + "\n", encoding="utf-8")
    own = folder / f"{uuid.uuid4().hex}.jsonl"
    try:
        with own.open("x", encoding="utf-8") as lines:
            yield RowCache(known, folder, lines)
    finally:
        with suppress(OSError):
            if own.stat().st_size == 0:
                own.unlink()


def read_rows(folder: Path) -> dict[str, Tokens]:
    """What a set holds, without the lines that are cut off or altered, and the files that cannot be read."""
    known: dict[str, Tokens] = {}
    for file in sorted(folder.glob("*.jsonl")):
        with suppress(OSError):
            for line in read_file(file).splitlines():
                known.update(_row(line))
    return known


def _row(line: bytes) -> dict[str, Tokens]:
    """The row of a line; {} for one that is cut off or altered."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return {}
    try:
        key, tokens = parse_json(text)
    except NOT_READABLE:
        return {}
    fits = isinstance(key, str) and isinstance(tokens, list) and all(type(token) is int for token in tokens)
    return {key: tokens} if fits else {}
