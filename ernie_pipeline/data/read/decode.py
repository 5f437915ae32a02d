"""Lines of JSON to rows: a fast decoder for what is as expected, the careful checker for everything else."""

from typing import Annotated

import msgspec

from ernie_pipeline.data.read.chunks import Chunk, checked_chunk, row_table
from ernie_pipeline.data.read.row_schema import Message, Parameters, SourceRow, check_record, parse_line

ESCAPED_NUL = b"\\u0000"
FEW_BRACKETS = 200
"""A line with fewer of them is not nested so deeply that any decoder refuses it (Python's limit is near 1,000)."""


class _ExactMessage(Message, forbid_unknown_fields=True, gc=False):
    pass


class _ExactParameters(Parameters, forbid_unknown_fields=True, gc=False):
    input: Annotated[list[_ExactMessage], msgspec.Meta(min_length=1)]  # type: ignore[assignment]


class _ExactRow(SourceRow, forbid_unknown_fields=True, gc=False):
    """A row with the schema's keys and no others, on every level."""

    responses_create_params: _ExactParameters


class LineDecoder:
    """Turns lines into rows. The outcome is always what `parse_line` and `check_record` make of them, but faster.

    `columns`: the keys of those records so far that have others than the schema's, or are broken.
    """

    def __init__(self, columns: dict[str, None]):
        self._columns = columns
        self._exact = msgspec.json.Decoder(_ExactRow).decode
        self._with_others = msgspec.json.Decoder(SourceRow).decode
        self._keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def chunk(self, numbered: list[tuple[int, bytes]]) -> Chunk:
        """The chunk of some (line number, line)."""
        lines = [line for _, line in numbered]
        if ESCAPED_NUL not in b"".join(lines):
            try:
                return Chunk(row_table([number for number, _ in numbered], [self._exact(line) for line in lines]), [])
            except (msgspec.MsgspecError, ValueError):  # the ones for which this holds are found below
                pass
        return checked_chunk(numbered, self.row)

    def row(self, line: bytes) -> SourceRow:
        """The row that a line holds; raises `RowProblem`."""
        if ESCAPED_NUL not in line:
            try:
                return self._exact(line)
            except (msgspec.MsgspecError, ValueError):
                pass
            if _is_skippable(line):
                try:
                    row = self._with_others(line)
                    self._columns.update(dict.fromkeys(self._keys(line)))
                    return row
                except (msgspec.MsgspecError, ValueError):
                    pass
        record = parse_line(line)
        if isinstance(record, dict):
            self._columns.update(dict.fromkeys(record))
        return check_record(record)


def _is_skippable(line: bytes) -> bool:
    """Whether the values that msgspec skips in a line, as nobody asks for them, are none that `parse_line` refuses.

    It skips over bytes that are not UTF-8, and to any depth that its own stack allows.
    """
    if line.count(b"[") + line.count(b"{") > FEW_BRACKETS:
        return False
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
