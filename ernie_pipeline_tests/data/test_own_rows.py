"""One's own rows, of any columns and in any form, as rows of the schema; and what is told where they cannot be read."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.data.read.reading import Reading
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.recipe.load import load_recipe, parse_recipe
from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.recipe.suites import INSTRUCTION
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import jsonl, read_rows

ROWS = [
    {"problem": "What is 6, plus 12?", "solution": 18, "id": "a"},
    {"problem": 'He said "two\nlines". How many are 2.5 and 2.5?', "solution": 5, "id": "b"},
    {"problem": "Was ist 3 \u00d7 7?", "solution": 21, "id": "c"},
]
GSM8K = [
    {"question": "Natalia sold 48 clips and half as many. How many?", "answer": "48/2 = <<48/2=24>>24 clips.\n#### 72"},
    {"question": "Weng earns $12 an hour. What for a year?", "answer": "Much.\n#### 1,018"},
]
CHAT = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"What is {n} + 1?"},
            {"role": "assistant", "content": rf"It is one more, so \boxed{{{n + 1}}}."},
        ]
    }
    for n in (3, 4)
]


def separated(rows: list[dict[str, Any]], separator: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def own(path: Path, content: bytes, **keys: Any) -> Source:
    path.write_bytes(content)
    return Source(kind="file", path=str(path), **keys)


def read(source: Source) -> tuple[pl.DataFrame, pl.DataFrame]:
    return read_rows(source, resolve_source(source))


def refused(source: Source) -> str:
    with pytest.raises(PipelineError) as caught:
        list(Reading(source, resolve_source(source)).chunks())
    return str(caught.value)


def arrow_file(rows: list[dict[str, Any]], stream: bool) -> bytes:
    table, out = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return bytes(out.getvalue())


FORMS = {
    "a.jsonl": jsonl(ROWS),
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "a.csv": separated(ROWS),
    "semicolons.csv": separated(ROWS, ";"),
    "a.tsv": separated(ROWS, "\t"),
    "A.CSV": separated(ROWS),
    "excel.csv": b"\xef\xbb\xbf" + separated(ROWS),
    "unicode_text.tsv": separated(ROWS, "\t").decode().encode("utf-16"),
    "a.csv.gz": gzip.compress(separated(ROWS)),
    "a.parquet": parquet(ROWS),
    "floats.parquet": parquet([{**row, "solution": float(str(row["solution"]))} for row in ROWS]),
    "file.arrow": arrow_file(ROWS, stream=False),
    "stream.arrow": arrow_file(ROWS, stream=True),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    source = own(tmp_path / name, FORMS[name], question="problem", answer="solution")
    rows, bad = read(source)
    assert bad.height == 0
    assert rows["question"].to_list() == [row["problem"] for row in ROWS]
    assert rows["expected_answer"].to_list() == ["18", "5", "21"]
    assert rows["messages"].to_list()[0] == [{"role": "user", "content": INSTRUCTION + "What is 6, plus 12?"}]
    reading = Reading(source, resolve_source(source))
    assert len(list(reading.chunks())) == 1
    assert reading.columns_left_out == ["id"]


def test_a_csv_row_is_known_by_the_line_in_which_it_begins(tmp_path: Path) -> None:
    rows, _ = read(own(tmp_path / "a.csv", separated(ROWS), question="problem", answer="solution"))
    assert rows["line"].to_list() == [2, 3, 5]


def test_gsm8k_is_read_by_the_lines_that_its_error_proposes(tmp_path: Path) -> None:
    plain = own(tmp_path / "gsm8k.jsonl", jsonl(GSM8K))
    told = refused(plain)
    assert "looks like GSM8K" in told
    assert "these three lines" in told
    lines = [line.strip() for line in told.splitlines()[1:]]
    assert lines == ['question = "question"', 'answer = "answer"', 'extract = "after ####"']
    recipe = tmp_path / "r.toml"
    recipe.write_text("\n".join(["[source]", 'kind = "file"', f'path = "{tmp_path / "gsm8k.jsonl"}"', *lines]))
    rows, bad = read(load_recipe(str(recipe)).source)
    assert (rows["expected_answer"].to_list(), bad.height) == (["72", "1,018"], 0)


def test_a_chat_s_last_turns_are_question_and_answer(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    told = refused(own(path, jsonl(CHAT)))
    assert told.splitlines()[1:] == ['    messages = "messages"', '    extract = "boxed"']
    rows, _ = read(own(path, jsonl(CHAT), messages="messages", extract="boxed"))
    assert rows["question"].to_list() == ["What is 3 + 1?", "What is 4 + 1?"]
    assert rows["expected_answer"].to_list() == ["4", "5"]
    assert [turn["content"] for turn in rows["messages"].to_list()[0]] == [
        "Be brief.",
        INSTRUCTION + "What is 3 + 1?",
    ]


def test_a_chat_may_have_its_answer_in_a_column_within_another(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "What is 3 + 1? Write it in \\boxed{}."}]
    verl = [{"prompt": turns, "reward_model": {"ground_truth": 4, "style": "rule"}}]
    for name, content in (("a.jsonl", jsonl(verl)), ("a.parquet", parquet(verl))):
        told = refused(own(tmp_path / name, content))
        assert told.splitlines()[1:] == [
            '    messages = "prompt"',
            '    answer = "reward_model.ground_truth"',
            '    instruction = ""',
        ]
        source = own(tmp_path / name, content, messages="prompt", answer="reward_model.ground_truth", instruction="")
        rows, _ = read(source)
        assert rows["messages"].to_list() == [turns]
        assert rows["expected_answer"].to_list() == ["4"]


def test_integers_as_answers_in_rows_of_the_schema_are_read_by_the_proposed_lines(tmp_path: Path) -> None:
    turns = {"input": [{"role": "user", "content": "Box it. What is 3 + 1?"}]}
    rows = [{"responses_create_params": turns, "question": "What is 3 + 1?", "expected_answer": 4}] * 2
    told = refused(own(tmp_path / "a.jsonl", jsonl(rows)))
    assert "expected_answer is a number" in told
    keys = dict(line.strip().split(" = ") for line in told.splitlines()[1:])
    source = own(tmp_path / "a.jsonl", jsonl(rows), instruction="", **{k: v.strip('"') for k, v in keys.items()})
    read_back, _ = read(source)
    assert read_back["expected_answer"].to_list() == ["4", "4"]
    assert read_back["messages"].to_list()[0] == turns["input"]


BROKEN: dict[str, tuple[Any, str]] = {
    "no mark": ({"q": "a", "a": "72"}, "a has nothing behind ####"),
    "a list": ({"q": "a", "a": ["#### 1"]}, "a is a list, neither text nor a number"),
    "a boolean": ({"q": "a", "a": True}, "a is a boolean, neither text nor a number"),
    "no answer": ({"q": "a"}, "a is missing"),
    "no question": ({"a": "#### 1"}, "q is missing"),
    "a question that is a number": ({"q": 1, "a": "#### 1"}, "q is a number, not a string"),
    "NUL": ({"q": "a\0", "a": "#### 1"}, "q holds a NUL character"),
    "no object": ([1], "row is a list, not an object"),
}


@pytest.mark.parametrize(("row", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_by_the_users_own_columns(tmp_path: Path, row: Any, problem: str) -> None:
    good = {"q": "What?", "a": "#### 1"}
    path, keys = tmp_path / "a.jsonl", {"question": "q", "answer": "a", "extract": "after ####"}
    told = refused(own(path, jsonl([good, row]), **keys))
    assert f"1 broken row where source.max_bad_rows tolerates 0 (line 2: {problem}" in told
    rows, bad = read(own(path, jsonl([good, row]), max_bad_rows=1, **keys))
    assert (rows.height, bad["line"].to_list()) == (1, [2])


def test_an_empty_answer_is_left_to_the_filters(tmp_path: Path) -> None:
    content = b"q,a\nWhat?,\nWhat?,so \\boxed{1}\n"
    rows, bad = read(own(tmp_path / "a.csv", content, question="q", answer="a", extract="boxed"))
    assert (rows["expected_answer"].to_list(), bad.height) == (["", "1"], 0)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_an_empty_file_is_told(tmp_path: Path, name: str) -> None:
    assert "holds no rows" in refused(own(tmp_path / name, b"", question="q", answer="a"))
    assert "holds no rows" in refused(own(tmp_path / name, b""))


def test_columns_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    told = refused(own(tmp_path / "a.csv", separated(ROWS), question="problems", answer="solution"))
    assert "has no column problems (its columns: problem, solution, id; problems may be problem)" in told
    assert told.splitlines()[1:] == ['    question = "problem"', '    answer = "solution"']


def test_columns_that_tell_nothing_are_asked_for(tmp_path: Path) -> None:
    told = refused(own(tmp_path / "a.csv", b"x,y\n1,2\n"))
    assert 'say in the recipe\'s [source] which columns hold what (question = "..."' in told


def test_a_csv_file_under_another_name_is_told_to_be_one(tmp_path: Path) -> None:
    told = refused(own(tmp_path / "rows.txt", separated(ROWS)))
    assert 'its first line, "problem,solution,id", is that of a CSV file; let its name end in .csv or .tsv' in told
    assert "broken" not in told


def test_a_row_with_a_separator_too_many_is_one_broken_row(tmp_path: Path) -> None:
    content = b"q,a\nWhat is 1, or 2?,3\nWhat?,4\n"
    told = refused(own(tmp_path / "a.csv", content, question="q", answer="a"))
    assert "line 2: row has 3 values where the header has 2" in told
    rows, _ = read(own(tmp_path / "a.csv", content, question="q", answer="a", max_bad_rows=1))
    assert rows["line"].to_list() == [3]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'q,a\n"What?,1\n', "cannot be read at line 2"),
        (b"q,a\nWas hei\xdft es?,1\n", "cannot be read at line 2 (it is not UTF-8; save it as UTF-8)"),
        (b"q,a\n" + b"What?,1\n" * 300_000 + b"Gr\xf6sser?,1\n", "cannot be read at line 300002 (it is not UTF-8"),
        ("q,a\nWhat?,1\n".encode("utf-16") + b"x", "(it is not UTF-8"),
        (b"q,a\nWhat?,1\nEin Ma\xc3", "cannot be read at line 3 (it is not UTF-8"),
        (b"q,q\n1,2\n", "has two columns called 'q'"),
        (b"PK\x03\x04...", "is a zip file or an Excel workbook, not lines of text; save it as CSV"),
        (b"PAR1....", "holds Parquet data, not lines of text; let its name end in .parquet"),
    ],
)
def test_a_csv_file_that_is_none_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    assert told in refused(own(tmp_path / "a.csv", content, question="q", answer="a"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"question": "q"}, "source.answer is missing: source.question needs"),
        ({"answer": "a"}, "source.answer is set without source.question"),
        ({"extract": "boxed"}, "source.extract is set without source.question"),
        ({"question": "q", "answer": "a", "extract": "after "}, "names no mark"),
        ({"question": "q", "answer": "a", "extract": "("}, "nor a regular expression (missing ), unterminated"),
        ({"config": "main"}, "source.config is a part of a hub data set"),
    ],
)
def test_a_source_that_cannot_be_is_told(keys: dict[str, str], told: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse_recipe({"source": {"kind": "file", "path": "a.csv", **keys}}, where="recipe here")
    assert told in str(caught.value)


def test_a_hub_data_set_s_config_and_columns_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets.load_dataset(path, name, *, split, revision)` gives a `Dataset` of the config `name`."""
    calls = []

    def load_dataset(path: str, name: str | None = None, *, split: str, revision: str) -> datasets.Dataset:
        calls.append((path, name, split, revision))
        return datasets.Dataset.from_list(GSM8K)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    commit = "a" * 40
    source = load_recipe("demo", "openai/gsm8k/main").source
    with pytest.raises(PipelineError, match='looks like GSM8K: let "ernie recipe init openai/gsm8k/main"'):
        read_rows(source, f"commit:{commit}")
    keys = {"question": "question", "answer": "answer", "extract": "after ####"}
    rows, _ = read_rows(source.model_copy(update=keys), f"commit:{commit}")
    assert rows["expected_answer"].to_list() == ["72", "1,018"]
    assert {*calls} == {("openai/gsm8k", "main", "train", commit)}
    from_file, _ = read(own(tmp_path / "a.jsonl", jsonl(GSM8K), **keys))
    assert from_file.equals(rows)
