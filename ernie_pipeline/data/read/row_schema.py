"""What a row is, and the check of one: Nemotron's schema, field by field."""

import json
from typing import Annotated, Any, NamedTuple

import msgspec

from ernie_pipeline.data.tables.contracts import BadRows, RawRows, polars_schema

ROWS = polars_schema(RawRows)
BAD_ROWS = polars_schema(BadRows)
MESSAGES = ROWS["messages"]


class Message(msgspec.Struct, gc=False):
    """One turn of a prompt. Strings alone, and no cycles: the garbage collector need not look at it."""

    role: str
    content: str


class Parameters(msgspec.Struct, gc=False):
    """What a row asks a model with: its turns, at least one."""

    input: Annotated[list[Message], msgspec.Meta(min_length=1)]


class SourceRow(msgspec.Struct, gc=False):
    """A checked row, shaped as in the source. A null question or answer is allowed: the filters drop it and say so."""

    responses_create_params: Parameters
    question: str | None
    expected_answer: str | None


COLUMNS = SourceRow.__struct_fields__
"""What is read of a row of the source."""
INPUT = "responses_create_params.input"


class RowProblem(Exception):
    """Why one row is broken: the field ("row" for the whole) and the problem, worded to follow the field's name."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class NotUtf8(NamedTuple):
    """Stands for a text whose bytes are none, from this one on (the first is 1)."""

    byte: int


def parse_line(line: bytes) -> Any:
    """What a line of JSON holds, each number as a float; raises `RowProblem`."""
    try:
        # an integer that nobody reads may have more digits than Python converts
        return json.loads(line.decode("utf-8").rstrip("\r\n"), parse_int=float)
    except UnicodeDecodeError as error:
        raise RowProblem("row", f"is not UTF-8 (byte {error.start + 1} of the line)") from error
    except RecursionError as error:
        raise RowProblem("row", "is nested too deeply") from error
    except json.JSONDecodeError as error:
        problem = f"{error.msg.removesuffix(' at')} at character {error.pos + 1} of the line"
        raise RowProblem("row", f"is not JSON ({problem})") from error


def check_record(record: Any) -> SourceRow:
    """The row that a decoded record holds; keys beyond the schema are ignored. Raises `RowProblem`."""
    if not isinstance(record, dict):
        raise RowProblem("row", f"is {_kind(record)}, not an object")
    parameters = _member(record, "responses_create_params", dict, "responses_create_params")
    messages = _member(parameters, "input", list, INPUT)
    if not messages:
        raise RowProblem(INPUT, "is an empty list")
    return SourceRow(
        Parameters([_message(message, f"{INPUT}[{position}]") for position, message in enumerate(messages)]),
        question=_optional_text(record, "question"),
        expected_answer=_optional_text(record, "expected_answer"),
    )


def _message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise RowProblem(field, f"is {_kind(message)}, not an object")
    return Message(
        *(_text(_member(message, key, str, f"{field}.{key}"), f"{field}.{key}") for key in ("role", "content"))
    )


def _optional_text(record: dict[str, Any], key: str) -> str | None:
    if key in record and record[key] is None:
        return None
    return _text(_member(record, key, str, key), key)


def _member(record: dict[str, Any], key: str, expected: type, field: str) -> Any:
    if key not in record:
        raise RowProblem(field, "is missing")
    value = record[key]
    if isinstance(value, NotUtf8):
        raise RowProblem(field, f"is not UTF-8 (byte {value.byte} of the text)")
    if not isinstance(value, expected):
        raise RowProblem(field, f"is {_kind(value)}, not {_KINDS[expected]}")
    return value


def _text(text: str, field: str) -> str:
    """Refuses what no UTF-8 text file could hold: it breaks writers and tokenizers far from here."""
    if "\0" in text:
        raise RowProblem(field, "holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, as in "\ud83d"
        raise RowProblem(field, f"holds half a character (\\u{ord(text[error.start]):04x})") from error
    return text


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)
