"""`init` writes a recipe that fits the rows: it loads, reads all of them, and its filters take few of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.cli.init import ROWS, init
from ernie_pipeline.data.chat.tokens import with_tokens
from ernie_pipeline.data.read.reading import Reading
from ernie_pipeline.data.read.source import resolve_source
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.utils.errors import PipelineError

WORK = "First this, then that, and so it is shown. " * 8


def asked(source: Path | str, **options: Any) -> int:
    return init(str(source), **({"base": "demo"} | options))


def written(folder: Path, source: Path, **options: Any) -> Recipe:
    out = folder / "made.toml"
    assert asked(source, out=out, **options) == 0
    return load_recipe(str(out))


def csv_file(path: Path, questions: list[str], header: str = "problem,solution") -> Path:
    path.write_text("\n".join([header, *(f'"{question}",{n}' for n, question in enumerate(questions))]) + "\n")
    return path


def read(recipe: Recipe) -> int:
    reading = Reading(recipe.source, resolve_source(recipe.source))
    return sum(chunk.rows.height for chunk in reading.chunks())


def test_a_csv_file_becomes_a_recipe_that_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = csv_file(tmp_path / "Grade 3.csv", [f"Anna has {n} apples and buys 7. How many has she?" for n in range(50)])
    recipe = written(tmp_path, rows)
    assert (recipe.source.question, recipe.source.answer, recipe.source.path) == ("problem", "solution", str(rows))
    assert recipe.registry.model_name == "ernie-math-grade-3"
    assert recipe.base_model.name == "demo"
    assert read(recipe) == 50
    assert "    ernie run --recipe " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nothere.csv", "there is no file {}; name a file of rows, or a data set of the hub (openai/gsm8k/main)"),
        ("grade3.csv", "there is no file {}; did you mean 'grade-3.csv'?"),
        ("", "{} is a folder; name a file of rows in it"),
    ],
)
def test_rows_that_are_not_there_are_told_so(named: str, said: str, tmp_path: Path) -> None:
    csv_file(tmp_path / "grade-3.csv", ["What is 1 + 1?"])
    place = str(tmp_path / named) if named else str(tmp_path)
    with pytest.raises(PipelineError) as caught:
        asked(place)
    assert str(caught.value) == said.format(place)


def test_a_name_that_is_neither_a_file_nor_on_the_hub_is_told_as_both() -> None:
    with pytest.raises(PipelineError, match=r"^there is no file no/where, and as a data set of the hub: "):
        asked("no/where")


def test_gsm8k_s_own_form_is_known_and_max_tokens_has_room_for_it(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"{WORK} What is {n} + 1?", "answer": f"{WORK}\n#### {n + 1}"}) for n in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    recipe = written(tmp_path, tmp_path / "train.jsonl")
    assert recipe.source.extract == "after ####"
    assert 128 < recipe.split.max_tokens <= 1536


def test_what_would_take_a_third_is_switched_off_and_no_more_than_that(tmp_path: Path) -> None:
    asks = [f"Is {n} larger than its own square root? (A) 1 (B) 2 (C) 3" for n in range(30)]
    recipe = written(tmp_path, csv_file(tmp_path / "a.csv", asks))
    assert not recipe.filters.multiple_choice
    assert recipe.filters.proof
    assert "it would take 100 % of these rows" in (tmp_path / "made.toml").read_text()


def test_short_and_long_questions_are_let_pass(tmp_path: Path) -> None:
    recipe = written(
        tmp_path, csv_file(tmp_path / "a.csv", [f"{n} + 2 = ?" if n % 2 else f"{n}+2?" for n in range(40)])
    )
    assert recipe.filters.min_question_chars <= 4


@pytest.mark.parametrize("count", [30, 150])
def test_of_few_rows_the_bounds_of_length_drop_none(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asks = [f"Anna has {n} apples and buys 7. How many has she?" for n in range(count - 2)]
    long = " ".join(f"Box {n} has {n * n} nails in it." for n in range(80))
    recipe = written(tmp_path, csv_file(tmp_path / "a.csv", ["4 + 4?", *asks, f"{long} How many are there?"]))
    assert (recipe.filters.min_question_chars, recipe.filters.max_question_chars >= 2000) == (6, True)
    assert f"\n{count} of {count} rows pass the filters.\n" in capsys.readouterr().out


def test_what_is_longer_than_the_model_reads_is_told_and_not_tokenized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of 60 MB took two minutes."""
    seen: list[int] = []

    def spied(rows: pl.DataFrame, tokenizer: Any) -> pl.DataFrame:
        seen.append(rows.height)
        return with_tokens(rows, tokenizer)

    monkeypatch.setattr("ernie_pipeline.cli.init.with_tokens", spied)
    asks = [f"Anna has {n} apples and buys 7. How many has she?" for n in range(27)]
    long = [" ".join(f"Box {n} has {n * n} nails in it." for n in range(many)) for many in (2000, 300)]
    recipe = written(tmp_path, csv_file(tmp_path / "a.csv", [*asks, *(f"{text} How many?" for text in long)]))
    assert (recipe.split.max_tokens, seen) == (1536, [28])
    dropped = "2 of 29 measured have more tokens than split.max_tokens = 1536 and will be dropped."
    assert f"\n29 of 29 rows pass the filters.\n{dropped}\n\n" in capsys.readouterr().out


def test_how_to_extract_may_be_named_alone_and_is_told_as_it_was_typed(tmp_path: Path) -> None:
    rows = [{"problem": f"What is {n} and 10?", "solution": f"So it is = {n + 10}"} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = written(tmp_path, tmp_path / "a.jsonl", extract=r"= (\d+)")
    assert (recipe.source.question, recipe.source.answer, recipe.source.extract) == ("problem", "solution", r"= (\d+)")
    for options, said in (
        ({"extract": "("}, "--extract = '(' is neither "),
        ({"question": "problem"}, "--answer is missing: --question needs the column of the reference answer too"),
    ):
        with pytest.raises(PipelineError) as caught:
            asked(tmp_path / "a.jsonl", out=tmp_path / "no.toml", **options)
        assert str(caught.value).startswith(said)


def test_broken_rows_are_counted_and_tolerated(tmp_path: Path) -> None:
    rows = [{"problem": f"What is {n}?", "solution": f"So \\boxed{{{n}}}" if n else "No."} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = written(tmp_path, tmp_path / "a.jsonl")
    assert (recipe.source.extract, recipe.source.max_bad_rows) == ("boxed", 1)
    assert read(recipe) == 29


def test_columns_that_do_not_tell_can_be_named(tmp_path: Path) -> None:
    rows = csv_file(tmp_path / "a.csv", [f"What is {n} and 10?" for n in range(20)], header="foo,bar")
    told = r"the columns 'foo', 'bar' \(its first line, so it has to have a header\), which do not tell .* --question"
    with pytest.raises(PipelineError, match=told):
        asked(rows, out=tmp_path / "no.toml")
    recipe = written(tmp_path, rows, question="foo", answer="bar")
    assert read(recipe) == 20


def test_no_file_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out = tmp_path / "rows.csv", str(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("mine")
    assert main(["init", str(rows), "--out", out]) == 1
    assert f"there is no file {rows}" in capsys.readouterr().err, "the rows are looked at first"
    csv_file(rows, [f"How many are {n} and 7 apples?" for n in range(20)])
    assert main(["init", str(rows), "--out", out]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "a.toml").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    rows = csv_file(tmp_path / "rows.csv", [f"How many are {n} and 7 apples?" for n in range(20)])
    with pytest.raises(PipelineError, match=r"a\.toml cannot be written \(No such file or directory\); name another"):
        asked(rows, out=tmp_path / "nowhere" / "a.toml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"problem,solution\n", "it has a header (problem, solution) and nothing below it"),
        (b"\n\n", "it has nothing but blank lines"),
    ],
)
def test_a_file_without_rows_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    rows = tmp_path / "a.csv"
    rows.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        asked(rows, out=tmp_path / "made.toml")
    assert str(caught.value) == f"file {rows} holds no rows: {said}; write rows into it, or name another"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"Question: what?\nAnswer: 4\n", "all 2 rows are broken, all like line 1: row is not JSON "),
        ("a.pdf", b"%PDF-1.4\n%\xe2\xe3\n", "all 2 rows are broken, "),
        ("a.xlsx", b"PK\x03\x04", "is a zip file or an Excel workbook, not lines of JSON; save it as CSV, "),
        ("a.json", b'["What is 1 + 1?"]', "row is a list, not an object"),
    ],
)
def test_of_a_file_that_has_no_rows_it_is_told_what_rows_are(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        asked(tmp_path / name, out=tmp_path / "made.toml")
    assert said in str(caught.value)
    assert str(caught.value).endswith(f": {ROWS}")


def test_rows_within_one_object_are_to_be_taken_out_of_it(tmp_path: Path) -> None:
    rows = tmp_path / "a.json"
    rows.write_text(json.dumps({"version": 1, "rows": [{"question": "1 + 1?", "answer": "2"}]}))
    with pytest.raises(PipelineError, match=r"is one object, not rows; write the members of its 'rows' one a line, or"):
        asked(rows, out=tmp_path / "made.toml")


def test_columns_within_one_object_are_to_be_made_rows(tmp_path: Path) -> None:
    rows = tmp_path / "a.json"
    rows.write_text(json.dumps({"question": ["1 + 1?", "2 + 2?"], "answer": ["2", "4"]}))
    with pytest.raises(PipelineError, match=r"is one object of columns, not rows; write one object a row$"):
        asked(rows, out=tmp_path / "made.toml")


def test_a_row_longer_than_the_model_reads_is_no_warning_of_transformers(tmp_path: Path) -> None:
    rows = [{"question": "1 + " * (3000 if n == 3 else 3) + "1?", "answer": "4"} for n in range(9)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    script = "import sys; sys.modules['torch'] = None; from ernie_pipeline.__main__ import entry; sys.exit(entry())"
    command = [sys.executable, "-c", script, "recipe", "init", "a.json", "--base", "demo"]  # seconds less without torch
    quiet = {**os.environ, "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}  # of torch, not of what this is about
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=quiet)
    assert (done.returncode, done.stderr) == (0, "")
