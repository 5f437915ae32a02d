"""Renamed, missing and added columns are told apart from broken rows."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.data.make_raw import write_raw
from ernie_pipeline.data.read.reading import Reading
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import jsonl, record, records, write


def renamed(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in row.items()}


def as_file(rows: list[dict[str, Any]], name: str, folder: Path, max_bad_rows: int = 10_000) -> Source:
    path = folder / name
    if name.endswith(".parquet"):
        pl.DataFrame(rows).write_parquet(path)
    else:
        write(path, jsonl(rows))
    return Source(kind="file", path=str(path), max_bad_rows=max_bad_rows)


def read_all(source: Source) -> Reading:
    reading = Reading(source, resolve_source(source))
    assert sum(chunk.rows.height for chunk in reading.chunks()) > 0
    return reading


FORMATS = pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])


@FORMATS
def test_a_renamed_column_is_named_with_what_it_may_be_called_now(tmp_path: Path, name: str) -> None:
    source = as_file([renamed(row, {"expected_answer": "answer"}) for row in records(3)], name, tmp_path)
    with pytest.raises(PipelineError) as caught:
        read_all(source)
    assert str(caught.value) == (
        f"file {tmp_path / name} has no column expected_answer (its columns: responses_create_params, question, "
        f'answer); it looks like chat messages: let "ernie recipe init {tmp_path / name}" write a recipe '
        "for it, or add these three lines to the recipe's [source]:\n"
        '    messages = "responses_create_params.input"\n    question = "question"\n    answer = "answer"'
    )


@FORMATS
def test_all_missing_columns_are_named(tmp_path: Path, name: str) -> None:
    source = as_file([{"text": "a"}, {"text": "b"}], name, tmp_path)
    message = (
        "has no column responses_create_params and no column question and no column expected_answer (its columns: text)"
    )
    with pytest.raises(PipelineError, match=re.escape(message)):
        read_all(source)


def test_a_column_that_some_rows_have_is_not_missing(tmp_path: Path) -> None:
    lacking = [renamed(row, {"question": "problem"}) for row in records(2)]
    source = as_file([*lacking, record(), record()], "a.jsonl", tmp_path, max_bad_rows=1)
    with pytest.raises(
        PipelineError, match=r"2 broken rows .*line 1: question is missing; line 2: question is missing"
    ):
        read_all(source)


def test_a_column_of_broken_rows_alone_is_not_missing(tmp_path: Path) -> None:
    """Each row is broken, each in another way; no column is lacking in all of them."""
    half = [renamed(records(1)[0], {"question": "q"}), renamed(records(1)[0], {"expected_answer": "a"})]
    with pytest.raises(PipelineError, match="2 broken rows"):
        read_all(as_file(half, "a.jsonl", tmp_path, max_bad_rows=0))


def test_rows_that_are_no_objects_say_nothing_of_columns(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"1 broken row .*row is a list"):
        read_all(write(tmp_path / "a.jsonl", b"[1]\n"))


def test_odd_names_of_columns_stay_one_short_line(tmp_path: Path) -> None:
    odd = {"a\nb": 1, "\ud83d": 2, "k" * 5000: 3, **{f"c{number:03}": 0 for number in range(100)}}
    with pytest.raises(PipelineError, match=r"a\\nb, \\ud83d, k{80}, c000.* and 83 more\)") as caught:
        read_all(as_file([odd], "a.jsonl", tmp_path))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@FORMATS
def test_columns_beyond_the_schema_are_left_out_and_listed(tmp_path: Path, name: str) -> None:
    more = [{**row, "uuid": "1", "domain": "algebra"} for row in records(3)]
    source = as_file(more, name, tmp_path)
    assert read_all(source).columns_left_out == ["domain", "uuid"]
    write_raw(source, resolve_source(source), tmp_path)
    assert (tmp_path / "reports/columns.json").read_text() == '{\n "left_out": [\n  "domain",\n  "uuid"\n ]\n}\n'


def test_a_column_of_one_row_in_thousands_is_seen(tmp_path: Path) -> None:
    rows = records(5000)
    rows[4321]["note"] = "a"
    assert read_all(as_file(rows, "a.jsonl", tmp_path)).columns_left_out == ["note"]


def test_no_more_columns_no_list(tmp_path: Path) -> None:
    assert read_all(as_file(records(3), "a.jsonl", tmp_path)).columns_left_out == []
