import gzip
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
import zstandard

from ernie_pipeline.data.read import read_rows
from ernie_pipeline.data.rows import ROWS
from ernie_pipeline.data.source import resolve_source
from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Source
from ernie_pipeline_tests.data.samples import jsonl, record, records, write

SKIPPABLE_FRAME = (
    b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
)  # RFC 8878, section 3.1.2; pzstd writes them


def read(source: Source) -> tuple[pl.DataFrame, pl.DataFrame]:
    return read_rows(source, resolve_source(source))


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Source:
    pl.DataFrame(rows).write_parquet(path)
    return Source(kind="file", path=str(path))


def test_a_row_is_read_whole(tmp_path: Path) -> None:
    rows, bad = read(write(tmp_path / "a.jsonl", jsonl([record("Was ist 1 + ½?", "\\frac{3}{2}")])))
    assert rows.schema == ROWS
    assert rows.row(0, named=True) == {
        "line": 1,
        "messages": [{"role": "user", "content": "Solve the following math problem.\n\nWas ist 1 + ½?"}],
        "question": "Was ist 1 + ½?",
        "expected_answer": "\\frac{3}{2}",
    }
    assert bad.is_empty()


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    rows = records(500)
    text = jsonl(rows)
    sources = [
        write(tmp_path / "a.jsonl", text),
        write(tmp_path / "a.jsonl.gz", gzip.compress(text)),
        write(tmp_path / "a.jsonl.zst", zstandard.compress(text)),
        as_parquet(tmp_path / "a.parquet", rows),
    ]
    frames = [read(source)[0] for source in sources]
    assert frames[0].height == 500
    assert all(frame.equals(frames[0]) for frame in frames)


def test_zstd_may_come_in_several_frames(tmp_path: Path) -> None:
    first, second = (zstandard.compress(part) for part in (jsonl(records(3)), jsonl(records(2))))
    rows, _ = read(write(tmp_path / "a.jsonl.zst", first + SKIPPABLE_FRAME + second))
    assert rows["line"].to_list() == [1, 2, 3, 4, 5]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    line = jsonl([record()])
    rows, bad = read(write(tmp_path / "a.jsonl", b"\n" + line + b"  \r\n\n" + line + b"\n"))
    assert rows["line"].to_list() == [2, 5]
    assert bad.is_empty()


def test_files_from_windows_are_read(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + jsonl(records(2)).replace(b"\n", b"\r\n")
    assert read(write(tmp_path / "a.jsonl", text))[0].height == 2


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", jsonl(records(2)).rstrip()))[0].height == 2


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_question_or_answer_is_left_to_the_filters(tmp_path: Path, empty: str | None) -> None:
    rows, bad = read(write(tmp_path / "a.jsonl", jsonl([record(answer=empty), {**record(), "question": empty}])))
    assert rows["expected_answer"].to_list() == [empty, "2"]
    assert rows["question"].to_list()[1] == empty
    assert bad.is_empty()


def with_parameters(parameters: Any) -> bytes:
    return jsonl([{**record(), "responses_create_params": parameters}])


def without(key: str) -> bytes:
    return jsonl([{name: value for name, value in record().items() if name != key}])


INPUT = "responses_create_params.input"
BAD_LINES = {
    "broken JSON": (b'{"question": \n', "row", "is not JSON (Expecting value"),
    "no object": (b"[1]\n", "row", "is a list, not an object"),
    "not UTF-8": (jsonl([record()]).replace(b"What", b"Wh\xe4t"), "row", "is not UTF-8 (byte "),
    "nested without end": (b"[" * 200_000 + b"\n", "row", "is nested too deeply"),
    "no question": (without("question"), "question", "is missing"),
    "no answer": (without("expected_answer"), "expected_answer", "is missing"),
    "no parameters": (without("responses_create_params"), "responses_create_params", "is missing"),
    "null parameters": (with_parameters(None), "responses_create_params", "is null, not an object"),
    "no input": (with_parameters({}), INPUT, "is missing"),
    "number as answer": (jsonl([record(answer=2)]), "expected_answer", "is a number, not a string"),
    "boolean as answer": (jsonl([record(answer=True)]), "expected_answer", "is a boolean, not a string"),
    "list as question": (jsonl([record(question=["a"])]), "question", "is a list, not a string"),
    "text as input": (with_parameters({"input": "Solve"}), INPUT, "is a string, not a list"),
    "empty input": (with_parameters({"input": []}), INPUT, "is an empty list"),
    "text as message": (with_parameters({"input": ["Solve"]}), f"{INPUT}[0]", "is a string, not an object"),
    "no role": (with_parameters({"input": [{"content": "Solve"}]}), f"{INPUT}[0].role", "is missing"),
    "no content": (with_parameters({"input": [{"role": "user"}]}), f"{INPUT}[0].content", "is missing"),
    "null content": (
        with_parameters({"input": [{"role": "user", "content": "a"}, {"role": "user", "content": None}]}),
        f"{INPUT}[1].content",
        "is null, not a string",
    ),
    "NUL": (jsonl([record(question="a\0b")]), f"{INPUT}[0].content", "holds a NUL character"),
    "NUL in the answer": (jsonl([record(answer="\0")]), "expected_answer", "holds a NUL character"),
    "half a character": (jsonl([record(answer="\ud83d")]), "expected_answer", "holds half a character (\\ud83d)"),
}


@pytest.mark.parametrize(("line", "field", "problem"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_tolerated_bad_row_is_left_out_and_told(tmp_path: Path, line: bytes, field: str, problem: str) -> None:
    good = jsonl([record()])
    rows, bad = read(write(tmp_path / "a.jsonl", good + line + good, max_bad_rows=1))
    assert rows["line"].to_list() == [1, 3]
    assert bad.select("line", "field").rows() == [(2, field)]
    assert bad["problem"][0].startswith(problem)


def test_more_bad_rows_than_tolerated_fail_with_the_first_three(tmp_path: Path) -> None:
    text = jsonl([record(), record(answer=1), [], {}, record(question=7), record(answer=False)])
    source = write(tmp_path / "a.jsonl", text, max_bad_rows=4)
    with pytest.raises(PipelineError) as caught:
        read(source)
    assert str(caught.value) == (
        f"file {tmp_path / 'a.jsonl'} has 5 broken rows where source.max_bad_rows tolerates 4 "
        "(line 2: expected_answer is a number, not a string; line 3: row is a list, not an object; "
        "line 4: responses_create_params is missing; and 2 more); correct them or raise source.max_bad_rows"
    )


def test_numbers_in_parquet_are_no_answers(tmp_path: Path) -> None:
    source = as_parquet(tmp_path / "a.parquet", [record(answer=2)])
    with pytest.raises(PipelineError, match="row 1: expected_answer is a number, not a string"):
        read(source)


def test_parquet_of_another_schema_fails_by_its_rows(tmp_path: Path) -> None:
    source = as_parquet(tmp_path / "a.parquet", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(PipelineError, match=r"2 broken rows .*responses_create_params is missing"):
        read(source)


CUT = {
    "a.jsonl": jsonl(records(3))[:-20],
    "b.jsonl": jsonl(records(2)) + b"\0" * 512,  # what a crash leaves of a file that was being written
    "a.jsonl.gz": gzip.compress(jsonl(records(2000)))[:-300],
    "a.jsonl.zst": zstandard.compress(jsonl(records(20000)))[:-300],
    "b.jsonl.zst": zstandard.compress(jsonl(records(2))) + zstandard.compress(jsonl(records(2)))[:-1],
}


@pytest.mark.parametrize(("name", "content"), CUT.items(), ids=CUT)
def test_a_file_that_was_cut_off_is_an_error_however_many_bad_rows_are_tolerated(
    tmp_path: Path, name: str, content: bytes
) -> None:
    source = write(tmp_path / name, content, max_bad_rows=1000)
    with pytest.raises(PipelineError, match=rf"{name} ends inside .*line \d+: it was cut off; fetch the file again"):
        read(source)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / name, jsonl(records(2)))
    with pytest.raises(PipelineError, match=str(tmp_path / name)):
        read(source)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_no_rows_at_all_is_an_error(tmp_path: Path, content: bytes) -> None:
    source = write(tmp_path / "a.jsonl", content)
    with pytest.raises(PipelineError, match="holds no rows"):
        read(source)


def test_a_file_that_changed_since_it_was_resolved_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", jsonl(records(2)))
    version = resolve_source(source)
    write(tmp_path / "a.jsonl", jsonl(records(3)))
    with pytest.raises(PipelineError, match="changed while in use"):
        read_rows(source, version)


def test_the_demo_gives_rows_of_the_schema() -> None:
    rows, bad = read(Source(rows=12))
    assert rows.schema == ROWS
    assert rows["line"].to_list() == list(range(1, 13))
    assert bad.is_empty()


HUB = Source(kind="hub", dataset="someone/maths", split="test", max_bad_rows=1)


def hub_holds(monkeypatch: pytest.MonkeyPatch, answer: list[dict[str, Any]] | Exception) -> list[dict[str, Any]]:
    """Imitates `datasets.load_dataset(path, *, split, revision)` of datasets 4.

    Its contract: gives the rows of one split as an iterable of dicts, at the revision; raises `DatasetNotFoundError`
    for a data set that is missing, gated or private, ValueError for an unknown split. Gives the list of calls.
    """
    calls = []

    def load_dataset(path: str, *, split: str, revision: str) -> list[dict[str, Any]]:
        calls.append({"path": path, "split": split, "revision": revision})
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_the_hub_is_read_at_the_resolved_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub_holds(monkeypatch, [record(), record(answer=2), record()])
    rows, bad = read_rows(HUB, "commit:" + "a" * 40)
    assert calls == [{"path": "someone/maths", "split": "test", "revision": "a" * 40}]
    assert rows["line"].to_list() == [1, 3]
    assert bad["line"].to_list() == [2]


@pytest.mark.parametrize(
    "refused",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'someone/maths' is a gated dataset on the Hub."),
        ValueError("Unknown split \"test\". Should be one of ['train']."),
        ConnectionError("Couldn't reach 'someone/maths' on the Hub (ConnectionError)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_hub_refuses_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch, refused: Exception) -> None:
    hub_holds(monkeypatch, refused)
    with pytest.raises(PipelineError) as caught:
        read_rows(HUB, "commit:" + "a" * 40)
    assert str(refused) in str(caught.value)
    assert "check the network and source.split, and set HF_TOKEN" in str(caught.value)
