"""Every kind of bad input that the reading meets, each with what is said of it."""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import jsonl, read_rows, record, records, write

GOOD = jsonl([record()])
INPUT = "responses_create_params.input"
DEEP = 200_000


def read(source: Source) -> tuple[pl.DataFrame, pl.DataFrame]:
    return read_rows(source, resolve_source(source))


def changed(**fields: Any) -> bytes:
    return jsonl([{**record(), **fields}])


def without(key: str) -> bytes:
    return jsonl([{name: value for name, value in record().items() if name != key}])


def prompt(*messages: Any) -> bytes:
    return changed(responses_create_params={"input": messages})


def with_value(text: bytes, key: bytes = b"more") -> bytes:
    """A good row with one more value, which is not read, as it is spelled."""
    return GOOD.replace(b'{"resp', b'{"' + key + b'": ' + text + b', "resp')


USER = {"role": "user", "content": "Solve"}
WRONG = {"number": 7, "fraction": 0.5, "boolean": True, "list": ["2"], "object": {"value": "2"}}
SAID = {
    "number": "a number",
    "fraction": "a number",
    "boolean": "a boolean",
    "list": "a list",
    "object": "an object",
    "null": "null",
    "text": "a string",
}

BAD_LINES: dict[str, tuple[bytes, str, str]] = {
    "broken JSON": (b'{"question": \n', "row", "is not JSON (Expecting value"),
    "cut off inside a line": (GOOD[:90] + b"\n", "row", "is not JSON (Unterminated string starting at character 68 of"),
    "two objects on a line": (GOOD.strip() + b" " + GOOD, "row", "is not JSON (Extra data"),
    "a comma after the object": (GOOD.strip() + b",\n", "row", "is not JSON (Extra data"),
    "a comma after the last key": (GOOD.replace(b"}\n", b",}\n"), "row", "is not JSON ("),
    "single quotes": (b"{'question': 'a'}\n", "row", "is not JSON ("),
    "plain text": (b"What is 1 + 1? 2\n", "row", "is not JSON (Expecting value at character 1 of the line)"),
    "CSV": (b"question,expected_answer\n", "row", "is not JSON ("),
    "an array": (b"[1]\n", "row", "is a list, not an object"),
    "an array of rows": (jsonl([[record()]]), "row", "is a list, not an object"),
    "a string": (b'"a"\n', "row", "is a string, not an object"),
    "a number": (b"17\n", "row", "is a number, not an object"),
    "null": (b"null\n", "row", "is null, not an object"),
    "NaN": (b"NaN\n", "row", "is a number, not an object"),
    "a byte order mark inside": (b"\xef\xbb\xbf" + GOOD, "row", "is not JSON (Unexpected UTF-8 BOM"),
    "not UTF-8": (GOOD.replace(b"What", b"Wh\xe4t"), "row", "is not UTF-8 (byte "),
    "not UTF-8 in a value not read": (with_value(b'"\xff"'), "row", "is not UTF-8 (byte "),
    "not UTF-8 in a key": (with_value(b"1", key=b"k\xc0\xaf"), "row", "is not UTF-8 (byte "),
    "a surrogate in UTF-8": (with_value(b'"\xed\xa0\xbd"'), "row", "is not UTF-8 (byte "),
    "UTF-16": (json.dumps(record()).encode("utf-16") + b"\n", "row", "is not UTF-8 (byte 1 of the line)"),
    "a NUL byte": (GOOD.replace(b"What", b"Wh\0t"), "row", "is not JSON (Invalid control character"),
    "NUL bytes for a line": (b"\0" * 512 + b"\n", "row", "is not JSON ("),
    "a tab inside a string": (GOOD.replace(b"What", b"Wh\tt"), "row", "is not JSON (Invalid control character"),
    "LaTeX not escaped": (GOOD.replace(b"What", b"\\sqrt"), "row", "is not JSON (Invalid \\escape"),
    "nested without end": (b"[" * DEEP + b"\n", "row", "is nested too deeply"),
    "nested deeply where not read": (with_value(b"[" * DEEP + b"]" * DEEP), "row", "is nested too deeply"),
    "nested deeply as answer": (
        GOOD.replace(b'"2"', b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        "row",
        "is nested too deeply",
    ),
    "an empty object": (b"{}\n", "responses_create_params", "is missing"),
    "no question": (without("question"), "question", "is missing"),
    "no answer": (without("expected_answer"), "expected_answer", "is missing"),
    "no parameters": (without("responses_create_params"), "responses_create_params", "is missing"),
    "no input": (changed(responses_create_params={}), INPUT, "is missing"),
    "an empty prompt": (prompt(), INPUT, "is an empty list"),
    "a null message": (prompt(None), f"{INPUT}[0]", "is null, not an object"),
    "text as message": (prompt("Solve"), f"{INPUT}[0]", "is a string, not an object"),
    "no role": (prompt({"content": "Solve"}), f"{INPUT}[0].role", "is missing"),
    "no content": (prompt({"role": "user"}), f"{INPUT}[0].content", "is missing"),
    "null content in the second": (prompt(USER, {**USER, "content": None}), f"{INPUT}[1].content", "is null, not"),
    "content in parts": (prompt({**USER, "content": [{"text": "a"}]}), f"{INPUT}[0].content", "is a list, not"),
    "NUL in the prompt": (prompt({**USER, "content": "a\0"}), f"{INPUT}[0].content", "holds a NUL character"),
    "NUL in the role": (prompt({**USER, "role": "\0"}), f"{INPUT}[0].role", "holds a NUL character"),
    "NUL in the question": (changed(question="a\0b"), "question", "holds a NUL character"),
    "NUL in the answer": (changed(expected_answer="\0"), "expected_answer", "holds a NUL character"),
    "half a character": (changed(expected_answer="\ud83d"), "expected_answer", "holds half a character (\\ud83d)"),
    "halves in the wrong order": (changed(question="\ude00\ud83d"), "question", "holds half a character (\\ude00)"),
    "NaN as answer": (changed(expected_answer=float("nan")), "expected_answer", "is a number, not a string"),
    "a huge number as answer": (GOOD.replace(b'"2"', b"9" * 5000), "expected_answer", "is a number, not a string"),
    "a key twice, the last is wrong": (GOOD.replace(b"}\n", b', "question": 1}\n'), "question", "is a number"),
    **{f"{kind} as answer": (changed(expected_answer=WRONG[kind]), "expected_answer", f"is {SAID[kind]}, not a string")
       for kind in WRONG},
    **{f"{kind} as question": (changed(question=WRONG[kind]), "question", f"is {SAID[kind]}, not a string")
       for kind in WRONG},
    **{f"{kind} as parameters": (changed(responses_create_params=value), "responses_create_params",
                                 f"is {SAID[kind]}, not an object")
       for kind, value in {**WRONG, "null": None, "text": "a"}.items() if kind != "object"},
    **{f"{kind} as input": (changed(responses_create_params={"input": value}), INPUT, f"is {SAID[kind]}, not a list")
       for kind, value in {**WRONG, "null": None, "text": "a"}.items() if kind != "list"},
    **{f"{kind} as role": (prompt({**USER, "role": value}), f"{INPUT}[0].role", f"is {SAID[kind]}, not a string")
       for kind, value in {**WRONG, "null": None}.items()},
}  # fmt: skip


@pytest.mark.parametrize(("line", "field", "problem"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_broken_row_is_left_out_and_named_with_its_line_and_field(
    tmp_path: Path, line: bytes, field: str, problem: str
) -> None:
    path = tmp_path / "a.jsonl"
    rows, bad = read(write(path, GOOD + b"\n" + line + GOOD, max_bad_rows=1))
    assert rows["line"].to_list() == [1, 4]
    assert bad.select("line", "field").rows() == [(3, field)]
    assert bad["problem"][0].startswith(problem)
    with pytest.raises(PipelineError, match=re.escape(f"file {path} has 1 broken row ")) as caught:
        read(Source(kind="file", path=str(path)))
    assert f"(line 3: {field} {problem}" in str(caught.value)


GOOD_LINES = {
    "several user turns": prompt(USER, {"role": "assistant", "content": "2"}, USER),
    "a system turn": prompt({"role": "system", "content": "Be brief."}, USER),
    "an unknown role": prompt({**USER, "role": "tool"}),
    "null as answer": changed(expected_answer=None),
    "empty texts": changed(question="", expected_answer=""),
    "a line of 20 MB": changed(question="x" * 20_000_000),
    "a key twice, the last is right": GOOD.replace(b'{"resp', b'{"question": 1, "resp'),
    "a key spelled with an escape": GOOD.replace(b'"question"', b'"\\u0071uestion"'),
    "more keys everywhere": changed(
        responses_create_params={"input": [{**USER, "name": "a"}], "tools": []}, uuid="1", metadata={"a": [1]}
    ),
    "NaN in a value not read": with_value(b"[NaN, -Infinity]"),
    "a huge integer in a value not read": with_value(b"9" * 5000),
    "half a character in a value not read": with_value(b'"\\ud83d"'),
    "NUL in a value not read": with_value(b'"\\u0000"'),
    "some nesting in a value not read": with_value(b"[" * 300 + b"]" * 300),
    "a backslash before u0000": changed(expected_answer="\\u0000"),
    "spaces around": b" \t" + GOOD.strip() + b" \r\n",
    "characters beyond the basic plane": jsonl([record("\U0001f600 ½ \U00020000")]),
    "not escaped": json.dumps(record("½ \U0001f600"), ensure_ascii=False).encode() + b"\n",
    "DEL and other odd characters": changed(question="\x7f\u2028\ufeff\uffff"),
}


@pytest.mark.parametrize("line", GOOD_LINES.values(), ids=GOOD_LINES)
def test_an_odd_row_that_keeps_to_the_schema_is_read(tmp_path: Path, line: bytes) -> None:
    rows, bad = read(write(tmp_path / "a.jsonl", line + GOOD))
    expected = json.loads(line, parse_int=float)
    turns = [{key: turn[key] for key in ("role", "content")} for turn in expected["responses_create_params"]["input"]]
    assert rows.row(0, named=True) == {
        "line": 1,
        "messages": turns,
        "question": expected["question"],
        "expected_answer": expected["expected_answer"],
    }
    assert rows["line"].to_list() == [1, 2]
    assert bad.is_empty()


MANY = jsonl(records(3000))
BLANK = "file {path} holds no rows: it has nothing but blank lines; set source"
BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", r"file {path} holds no rows: it is empty \(0 bytes\); set source"),
    "only blank lines": ("a.jsonl", b"\n \r\n\t\n", BLANK),
    "only a byte order mark": ("a.jsonl", b"\xef\xbb\xbf", BLANK),
    "empty gzip": ("a.jsonl.gz", gzip.compress(b""), BLANK),
    "empty zstd": ("a.jsonl.zst", zstandard.compress(b""), BLANK),
    "ends inside a line": ("a.jsonl", jsonl(records(3))[:-20], "{path} ends inside line 3: it was cut off"),
    "NUL bytes at the end": ("a.jsonl", jsonl(records(2)) + b"\0" * 512, "{path} ends inside line 3: it was cut off"),
    "truncated gzip": (
        "a.jsonl.gz", gzip.compress(MANY)[:-300], r"{path} ends inside its compressed data, after line \d+: it was cut"
    ),
    "gzip without its end mark": (
        "a.jsonl.gz", gzip.compress(MANY)[:-4], "{path} ends inside its compressed data, after line 3000: it was cut"
    ),
    "truncated zstd": (
        "a.jsonl.zst", zstandard.compress(MANY)[:-300], r"{path} ends inside its compressed data, after line \d+"
    ),
    "zstd cut off in its second frame": (
        "a.jsonl.zst",
        zstandard.compress(jsonl(records(2))) + zstandard.compress(GOOD)[:-1],
        "{path} ends inside its compressed data, after line [23]",
    ),
    "gzip with garbage behind": (
        "a.jsonl.gz", gzip.compress(MANY) + b"garbage", r"{path} cannot be read after line \d+ \(Not a gzipped file"
    ),
    "gzip with a flipped bit": (
        "a.jsonl.gz",
        (lambda text: text[:-6] + bytes([text[-6] ^ 1]) + text[-5:])(gzip.compress(MANY)),
        r"{path} cannot be read after line \d+ \(CRC check failed",
    ),
    "zstd with garbage behind": (
        "a.jsonl.zst", zstandard.compress(GOOD) + b"garbage!", r"{path} cannot be read after line \d+ \("
    ),
    "gzip named as text": (
        "a.jsonl", gzip.compress(GOOD), r"{path} holds gzip data, not lines of JSON; let its name end in \.jsonl\.gz"
    ),
    "zstd named as text": (
        "a.jsonl", zstandard.compress(GOOD), r"{path} holds zstd data, .*; let its name end in \.jsonl\.zst"
    ),
    "Parquet named as text": ("a.jsonl", b"PAR1\0\0PAR1", r"{path} holds Parquet data, .*; let its name end in \.parq"),
    "text named as gzip": ("a.jsonl.gz", GOOD, r"{path} cannot be read after line 0 \(Not a gzipped file"),
    "text named as zstd": ("a.jsonl.zst", GOOD, r"{path} cannot be read after line 0 \("),
    "text named as Parquet": ("a.parquet", MANY, r"{path} is not a readable Parquet file \("),
    "an empty Parquet file": ("a.parquet", b"", r"{path} is not a readable Parquet file \("),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_an_error_however_many_bad_rows_are_tolerated(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    source = write(tmp_path / name, content, max_bad_rows=1000)
    with pytest.raises(PipelineError, match=message.replace("{path}", re.escape(str(tmp_path / name)))) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    assert re.search(r"; (fetch|set|let|write) ", str(caught.value)), "it does not say what to do"


NOT_ROWS = {
    "a pretty object": (
        json.dumps({"data": records(2)}, indent=2).encode(),
        "is an object over several lines, not rows; write each row on a line of its own, or all rows as one array",
    ),
    "a pretty row after the other": (
        b"".join(json.dumps(row, indent=1).encode() + b"\n" for row in records(2)),
        "is an object over several lines, not rows; write each row",
    ),
    "an array that is cut off": (
        json.dumps(records(3), indent=1).encode()[:-90],
        "ends inside its array of rows: it was cut off",
    ),
    "an array with a comma too many": (
        json.dumps(records(3)).encode()[:-1] + b",]",
        r"is an array of rows that cannot be read as JSON \(JSON is malformed: .* \(byte \d+\)\); correct it",
    ),
    "an array with more behind it": (
        json.dumps(records(2)).encode() + b"\n{}\n",
        "is an array of rows that cannot be read as JSON",
    ),
    "UTF-32": ("\ufeff{}\n".encode("utf-32-le"), "is UTF-32; write it again, as UTF-8"),
    "UTF-16 that is cut off": (
        jsonl(records(2)).decode().encode("utf-16")[:-1],
        r"is UTF-16 and cannot be read after line \d",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), NOT_ROWS.values(), ids=NOT_ROWS)
def test_a_file_that_is_something_else_is_told_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    source = write(tmp_path / "a.jsonl", content, max_bad_rows=1000)
    with pytest.raises(PipelineError, match=rf"a\.jsonl {message}") as caught:
        read(source)
    assert "\n" not in str(caught.value)


def test_one_object_on_one_line_that_holds_the_rows_is_told_by_its_key(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", json.dumps({"data": records(2)}).encode())
    with pytest.raises(
        PipelineError, match=r"one object with the key data, not rows; write the members of data one a line"
    ):
        read(source)


def test_when_all_rows_are_broken_it_says_that_and_why(tmp_path: Path) -> None:
    broken = [record(answer=1), record(question=[]), record(answer=2)]
    with pytest.raises(PipelineError) as caught:
        read(write(tmp_path / "a.jsonl", jsonl(broken), max_bad_rows=100))
    assert str(caught.value).startswith(
        f"file {tmp_path / 'a.jsonl'}: all 3 rows are broken, 2 of them like line 1: expected_answer is a number, not "
        "a string; correct them, or set source to another; it looks like chat messages: "
    )
    with pytest.raises(
        PipelineError, match=r"all 2 rows are broken, all as line 1: question is null, not|the only row"
    ):
        read(write(tmp_path / "b.jsonl", jsonl([[1]]), max_bad_rows=100))


def test_a_broken_member_of_an_array_is_one_broken_row(tmp_path: Path) -> None:
    content = json.dumps([record(), record(answer=7), record()], indent=1).encode().replace(b"1 + 1", b"1 \xff 1", 2)
    path = tmp_path / "a.jsonl"
    rows, bad = read(write(path, content, max_bad_rows=2))
    assert rows["line"].to_list() == [3]
    assert bad.select("line", "field").rows() == [(1, "row"), (2, "expected_answer")]
    with pytest.raises(PipelineError, match=r"2 broken rows .* \(row 1: row is not UTF-8 \(byte "):
        read(Source(kind="file", path=str(path)))


def test_a_source_file_that_cannot_be_looked_for_is_told(tmp_path: Path) -> None:
    source = Source(kind="file", path=str(tmp_path / ("a" * 300)))
    with pytest.raises(PipelineError, match=r"cannot be looked for \(File name too long\); set source\.path"):
        resolve_source(source)


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    for path, problem in ((tmp_path, "is a folder, not a file"), (tmp_path / "none.jsonl", "does not exist")):
        with pytest.raises(PipelineError, match=re.escape(f"source file {path} {problem}; set source.path")):
            read(Source(kind="file", path=str(path)))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that root cannot read either is of Linux")
@pytest.mark.parametrize("step", [resolve_source, lambda source: read_rows(source, "sha256:0")])
def test_an_unreadable_file_is_told(step: Callable[[Source], Any]) -> None:
    with pytest.raises(PipelineError, match=r"/proc/self/mem cannot be read .*Input/output error"):
        step(Source(kind="file", path="/proc/self/mem"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(PipelineError, match=r"a\.jsonl cannot be read \(Permission denied\); make it readable"):
        read(source)
