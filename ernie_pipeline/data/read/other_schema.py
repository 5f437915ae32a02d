"""What is told of rows that the recipe's [source] does not read: their columns, and the lines that would read them."""

import difflib
import shlex
from itertools import islice

from ernie_pipeline.data.read.formats import format_of
from ernie_pipeline.data.read.lines import numbered_lines
from ernie_pipeline.data.read.mapped import Columns
from ernie_pipeline.data.read.propose import Proposal, propose
from ernie_pipeline.data.read.records import first_records
from ernie_pipeline.data.read.row_schema import COLUMNS
from ernie_pipeline.data.read.source import source_file
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError

LOOKED_AT = 50
"""Rows from which it is told what a source looks like."""
SHOWN_COLUMNS = 20
SHOWN_CHARACTERS = 80
RESEMBLANCE = 0.5
"""Of two names, as `difflib` measures it: "answer" stands for "expected_answer", "problem" for nothing."""
COUNTS = ("no", "this one", "these two", "these three", "these four", "these five")


def other_columns(name: str, missing: list[str], columns: list[str], rows: int, mapping: Columns | None) -> str:
    """That the source `name` lacks columns, as far as the sentence goes without advice. `rows`: broken ones."""
    if len(columns) == 1 and rows == 1:
        key = shown_column(columns[0])
        return (
            f"{name} is one object with the key {key}, not rows; write the members of {key} one a line, or as one array"
        )
    near = {key: difflib.get_close_matches(key, columns, n=1, cutoff=RESEMBLANCE) for key in missing if mapping}
    hints = [f"; {shown_column(key)} may be {shown_column(match[0])}" for key, match in near.items() if match]
    shown = ", ".join(map(shown_column, columns[:SHOWN_COLUMNS]))
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    lacking = " and no column ".join(map(shown_column, missing))
    return f"{name} has no column {lacking} (its columns: {shown}{more}{''.join(hints)})"


def how_to_read(source: Source, version: str) -> str:
    """The advice that ends such a sentence: the lines of [source] that read these rows, where their columns tell."""
    records = first_records(source, version, LOOKED_AT)
    found = propose(records) if records else None
    if found and found.keys.items() <= source.model_dump().items():
        return ""  # they are read so already
    if found:
        return f"; {advice(found, source)}"
    if not records or source.has_columns:
        return ""
    return (
        '; say in the recipe\'s [source] which columns hold what (question = "...", answer = "...", and extract = '
        '"boxed" or "after ####" where more than the answer stands there), or give each row the columns '
        f"{', '.join(COLUMNS)}"
    )


def advice(found: Proposal, source: Source) -> str:
    """The proposal as text to paste."""
    lines, count = "".join(f"\n    {line}" for line in found.lines), COUNTS[len(found.lines)]
    place = source.path if source.kind == "file" else "/".join(filter(None, (source.dataset, source.config)))
    return (
        f'it looks like {found.looks_like}: let "ernie recipe init {shlex.quote(place)}" write a recipe '
        f"for it, or add {count} lines to the recipe's [source]:{lines}"
    )


def shown_column(column: str) -> str:
    """A column's name as a line of text can hold it, whatever it is."""
    return repr(column[:SHOWN_CHARACTERS])[1:-1]


def csv_line(source: Source) -> str:
    """The first line of a file that is read as JSON, if it looks like the header of a CSV file; else ""."""
    if source.kind != "file" or format_of(source_file(source)) != "json":
        return ""
    try:
        first = next(islice(numbered_lines(source_file(source)), 1), (0, b""))[1].decode().strip()
    except (PipelineError, UnicodeDecodeError):
        return ""
    is_header = any(mark in first for mark in ",;\t") and first[:1] not in ("{", "[")
    return shown_column(first) if is_header else ""
