import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
import zstandard

from ernie_pipeline.data.read.reading import Reading
from ernie_pipeline.data.read.row_schema import ROWS
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import jsonl, read_rows, record, records, write

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
    rows = records(9000)  # some chunks of them
    text = jsonl(rows)
    sources = [
        write(tmp_path / "a.jsonl", text),
        write(tmp_path / "a.jsonl.gz", gzip.compress(text)),
        write(tmp_path / "a.jsonl.zst", zstandard.compress(text)),
        as_parquet(tmp_path / "a.parquet", rows),
    ]
    frames = [read(source)[0] for source in sources]
    assert frames[0].height == 9000
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
    huge_number = jsonl([record()]).replace(b"}\n", b', "more": ' + b"9" * 5000 + b"}")
    assert read(write(tmp_path / "b.jsonl", huge_number))[0].height == 1


LAYOUTS = {
    "a pretty array": lambda rows: json.dumps(rows, indent=2).encode(),
    "an array on one line": lambda rows: json.dumps(rows).encode() + b"\n",
    "an array with a row on each line": lambda rows: json.dumps(rows).replace('}, {"resp', '},\n{"resp').encode(),
    "an array with a byte order mark": lambda rows: b"\xef\xbb\xbf \n" + json.dumps(rows, indent=1).encode(),
    "CR": lambda rows: jsonl(rows).replace(b"\n", b"\r"),
    "CR, and LF at the end": lambda rows: jsonl(rows).replace(b"\n", b"\r") + b"\n",
    "UTF-16 of Windows": lambda rows: jsonl(rows).decode().replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big end first": lambda rows: b"\xfe\xff" + jsonl(rows).decode().encode("utf-16-be"),
    "UTF-16 without a mark": lambda rows: jsonl(rows).decode().encode("utf-16-le"),
    "UTF-16 with CR": lambda rows: jsonl(rows).decode().replace("\n", "\r").encode("utf-16"),
    "an array in UTF-16": lambda rows: json.dumps(rows, indent=1).encode("utf-16"),
}  # fmt: skip


@pytest.mark.parametrize("lay_out", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_every_layout_gives_the_same_rows(tmp_path: Path, lay_out: Any, compress: Any) -> None:
    rows = [record("Was ist 1 + \U0001d7d9?", "\\frac{3}{2}"), *records(12_000 if compress is bytes else 50)]
    ending = {bytes: "", gzip.compress: ".gz", zstandard.compress: ".zst"}[compress]
    expected, _ = read(write(tmp_path / "a.jsonl", jsonl(rows)))
    found, bad = read(write(tmp_path / f"b.jsonl{ending}", compress(lay_out(rows))))
    assert found.equals(expected)
    assert bad.is_empty()


def test_a_carriage_return_inside_a_line_ends_none(tmp_path: Path) -> None:
    text = jsonl(records(2)).replace(b', "question"', b',\r "question"')
    rows, _ = read(write(tmp_path / "a.jsonl", jsonl(records(1)) + text))
    assert rows["line"].to_list() == [1, 2, 3]


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_question_or_answer_is_left_to_the_filters(tmp_path: Path, empty: str | None) -> None:
    rows, bad = read(write(tmp_path / "a.jsonl", jsonl([record(answer=empty), {**record(), "question": empty}])))
    assert rows["expected_answer"].to_list() == [empty, "2"]
    assert rows["question"].to_list()[1] == empty
    assert bad.is_empty()


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


def test_a_file_that_changed_since_it_was_resolved_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", jsonl(records(2)))
    version = resolve_source(source)
    write(tmp_path / "a.jsonl", jsonl(records(3)))
    with pytest.raises(PipelineError, match="changed while in use"):
        read_rows(source, version)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", jsonl(records(9000)))
    chunks = Reading(source, resolve_source(source)).chunks()
    assert next(chunks).rows.height > 0
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(jsonl([record()]))
    with pytest.raises(PipelineError, match=r"a\.jsonl changed while in use \(sha256:.* is now sha256:.*\); run again"):
        list(chunks)


def test_chunks_come_before_the_file_is_at_its_end(tmp_path: Path) -> None:
    """Of a file that no memory holds, the first rows are there before the last ones are read: here, a broken end."""
    source = write(tmp_path / "a.jsonl.gz", gzip.compress(jsonl(records(20_000)))[:-300])
    chunks = Reading(source, resolve_source(source)).chunks()
    assert [next(chunks).rows.height for _ in range(3)] == [4096] * 3


def test_the_demo_gives_rows_of_the_schema() -> None:
    rows, bad = read(Source(rows=12))
    assert rows.schema == ROWS
    assert rows["line"].to_list() == list(range(1, 13))
    assert bad.is_empty()


HUB = Source(kind="hub", dataset="someone/maths", split="test", max_bad_rows=1)


def hub_holds(monkeypatch: pytest.MonkeyPatch, answer: list[dict[str, Any]] | Exception) -> list[dict[str, Any]]:
    """Imitates `datasets.load_dataset(path, name, *, split, revision)` of datasets 4: a `Dataset` of one split.

    Its contract: the rows at the revision; raises `DatasetNotFoundError` for a data set that is missing, gated or
    private, ValueError for an unknown split. Gives the list of calls.
    """
    calls = []

    def load_dataset(path: str, name: str | None, *, split: str, revision: str) -> datasets.Dataset:
        calls.append({"path": path, "split": split, "revision": revision})
        if isinstance(answer, Exception):
            raise answer
        return datasets.Dataset.from_list(answer)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_the_hub_is_read_at_the_resolved_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    no_prompt = {**record(), "responses_create_params": {"input": []}}
    calls = hub_holds(monkeypatch, [record(), no_prompt, record()])
    rows, bad = read_rows(HUB, "commit:" + "a" * 40)
    assert calls == [{"path": "someone/maths", "split": "test", "revision": "a" * 40}]
    assert rows["line"].to_list() == [1, 3]
    assert bad.rows() == [(2, "responses_create_params.input", "is an empty list")]


def test_the_hub_gives_the_rows_that_a_file_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [{**row, "license": "cc-by-4.0"} for row in records(5000)]
    hub_holds(monkeypatch, rows)
    from_hub = read_rows(HUB, "commit:" + "a" * 40)[0]
    assert from_hub.equals(read(write(tmp_path / "a.jsonl", jsonl(rows)))[0])


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
    assert "check the network, source.config and source.split, and set HF_TOKEN" in str(caught.value)
