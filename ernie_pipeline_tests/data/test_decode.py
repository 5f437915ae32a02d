"""The fast decoder is as the careful checker: whatever bytes a line holds, the same row, or the same problem."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_pipeline.data.read.chunks import checked_chunk
from ernie_pipeline.data.read.decode import LineDecoder
from ernie_pipeline.data.read.row_schema import RowProblem, SourceRow, check_record, parse_line
from ernie_pipeline_tests.data.samples import jsonl, record, records

FAST = settings(max_examples=300, deadline=None, derandomize=True)


def carefully(line: bytes) -> SourceRow:
    return check_record(parse_line(line))


def outcome(check: Any, line: bytes) -> Any:
    """The row as plain values, or its problem."""
    try:
        return msgspec.to_builtins(check(line))
    except RowProblem as problem:
        return problem.field, problem.problem


TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "\0", "\ud83d", "\U0001f600", "\\u0000", "\\frac{1}{2}", "[" * 250, "\x1f", "\ufeff", '"']),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=4
)
MORE = st.one_of(st.just({}), st.dictionaries(TEXT, ANY, max_size=1))


def objects(more: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with those fields, among others, in any order."""
    return st.tuples(st.fixed_dictionaries(fields), more, st.booleans()).map(
        lambda parts: {**parts[0], **parts[1]} if parts[2] else {**parts[1], **parts[0]}
    )


def records_of(wrong: bool) -> st.SearchStrategy[Any]:
    """Records of the schema, with other keys on every level; `wrong`: or with anything in the place of anything."""

    def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(right, right, right, ANY) if wrong else right

    turn = objects(MORE, role=mostly(TEXT), content=mostly(TEXT))
    optional = mostly(st.one_of(TEXT, st.none()))
    parameters = objects(MORE, input=mostly(st.lists(mostly(turn), min_size=0 if wrong else 1, max_size=3)))
    return mostly(
        objects(MORE, responses_create_params=mostly(parameters), question=optional, expected_answer=optional)
    )


RECORDS = st.one_of(records_of(wrong=False), records_of(wrong=True))
PIECES = [b"", b"\xff", b"\xc3", b"\0", b'"', b"{", b"]", b",", b" ", b"\\", b"\\u0000", b"1"]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A record as one of JSON's spellings, often with some bytes changed, put in or taken out."""
    value = draw(RECORDS)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([None, (",", ":")])))
    line = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        place = draw(st.integers(0, len(line)))
        piece = draw(st.sampled_from(PIECES))
        line = line[:place] + piece + line[place + draw(st.integers(0, 1)) :]
    return line + draw(st.sampled_from([b"\n", b"", b"\r\n"]))


GOOD = jsonl([record()])


def unread(text: bytes) -> bytes:
    return GOOD.replace(b"}\n", b', "more": ' + text + b"}\n")


@FAST
@given(lines())
@example(unread(b'"\xff"'))
@example(unread(b'{"\xc0\xaf": 1}'))
@example(unread(b'"\xed\xa0\xbd"'))
@example(unread(b'"\\ud83d"'))
@example(unread(b'"\\u0000"'))
@example(unread(b"[" * 5000 + b"]" * 5000))
@example(unread(b"[" * 990 + b"]" * 990))
@example(unread(b'{"a":' * 990 + b"1" + b"}" * 990))
@example(unread(b"1" * 5000))
@example(unread(b"NaN"))
@example(GOOD.replace(b'"content": "', b'"content": "\xff'))
@example(GOOD.replace(b'"2"', b'"\\u0000"'))
@example(GOOD.replace(b"}\n", b', "question": "again"}\n'))
@example(GOOD.replace(b"}\n", b', "responses_create_params": {}}\n'))
@example(GOOD.replace(b'"input"', b'"input": [], "input"'))
@example(GOOD.replace(b'"question"', b'"\\u0071uestion"'))
@example(b"\xef\xbb\xbf" + GOOD)
def test_a_line_is_as_the_careful_checker_has_it(line: bytes) -> None:
    assert outcome(LineDecoder({}).row, line) == outcome(carefully, line)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.just(GOOD), lines()), min_size=1, max_size=6))
@example([GOOD] * 3)
@example([GOOD, GOOD.replace(b'"2"', b'"\\u0000"'), GOOD])
@example([GOOD, unread(b"1"), b"[]\n", GOOD])
def test_lines_together_are_as_each_by_itself(several: list[bytes]) -> None:
    numbered = list(enumerate(several, start=3))
    together, alone = LineDecoder({}).chunk(numbered), checked_chunk(numbered, carefully)
    assert together.bad == alone.bad
    assert together.rows.equals(alone.rows)


def test_what_is_as_expected_goes_by_the_fast_way_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(line: bytes) -> Any:
        raise AssertionError(f"the careful checker was asked about {line!r}")

    monkeypatch.setattr("ernie_pipeline.data.read.decode.parse_line", never)
    columns: dict[str, None] = {}
    more = [{**row, "uuid": "1", "meta": [{"a": 1.5}]} for row in records(5)]
    rows = LineDecoder(columns).chunk(list(enumerate(jsonl([*records(5), *more]).splitlines(True), start=1))).rows
    assert rows.height == 10
    assert set(columns) - set(record()) == {"uuid", "meta"}
