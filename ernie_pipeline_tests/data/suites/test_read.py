"""A suite's rows from files and the hub, with the reference answer where its column has it."""

import doctest
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest

from ernie_pipeline.data.suites import references
from ernie_pipeline.data.suites.read import SuiteRows, read_suite, resolve_suite
from ernie_pipeline.recipe.suites import SuiteColumns, SuiteSource
from ernie_pipeline.utils.errors import PipelineError

COMMIT = "c" * 40


def write_jsonl(file: Path, *rows: Any) -> SuiteSource:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SuiteSource(path=str(file))


def read(source: SuiteSource, **columns: Any) -> SuiteRows:
    return read_suite("mine", source, SuiteColumns(**columns), resolve_suite("mine", source))


def test_the_examples_of_reference_answers_hold() -> None:
    assert doctest.testmod(references) == (0, 5)


def test_gsm8k_s_answer_stands_behind_the_hashes(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"question": "How many?", "answer": "2+2=<<2+2=4>>4\n#### 1,004"})
    assert read(source, extract="after ####").rows.to_dicts() == [
        {"line": 1, "question": "How many?", "expected_answer": "1,004", "level": None, "subject": None}
    ]


def test_svamp_s_question_has_two_columns_and_its_answer_is_a_number(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "a.jsonl", {"Body": "A has 3. ", "Question": "How many?", "Answer": 3.0, "Type": "x"}
    )
    rows = read(source, question=("Body", "Question"), answer="Answer", subject="Type").rows
    assert rows.select("question", "expected_answer", "subject").row(0) == ("A has 3. How many?", "3", "x")


def test_math_s_answer_stands_in_the_last_box_and_its_level_is_a_label(tmp_path: Path) -> None:
    solution = r"First \boxed{1}, so $\boxed{\frac{1}{2}}$."
    source = write_jsonl(tmp_path / "a.jsonl", {"problem": "p?", "solution": solution, "level": 5})
    rows = read(source, question="problem", answer="solution", extract="boxed", level="level").rows
    assert rows.select("expected_answer", "level").row(0) == (r"\frac{1}{2}", "5")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json", "a.jsonl"])
def test_each_form_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    table = pl.DataFrame({"question": ["one?", "two?"], "answer": ["1", "2"]})
    write = {"a.csv": table.write_csv, "a.parquet": table.write_parquet, "a.json": table.write_json}
    write.get(name, table.write_ndjson)(tmp_path / name)
    rows = read(SuiteSource(path=str(tmp_path / name))).rows
    assert rows.select("line", "question", "expected_answer").rows() == [(1, "one?", "1"), (2, "two?", "2")]


@pytest.mark.parametrize(
    ("rows", "columns", "sentence"),
    [
        ([], {}, "suite mine is empty: its set has no rows; correct suites.mine.source"),
        (
            [{"problem": "x", "answer": "1"}],
            {},
            "suite mine has no column 'question' among problem, answer; set suites.mi",
        ),
        ([{"question": "x"}], {"answer": "solution"}, "suite mine has no column 'solution' among question; set suites"),
        (
            [{"question": "x", "answer": "1"}],
            {"level": "lvl"},
            "no column 'lvl' among question, answer; set suites.mine.l",
        ),
        (
            [{"question": "x", "answer": None}] * 2,
            {},
            "suite mine has no row with a question and a reference answer (row 1 has no reference answer: None): the "
            "column 'answer' is to hold text, a number or a list of them; correct suites.mine.answer or .extract",
        ),
        (
            [{"question": "x", "answer": "4"}],
            {"extract": "after ####"},
            "is to hold text with the answer behind ####",
        ),
        (
            [{"question": "x", "answer": "4"}, {"question": " ", "answer": "4"}],
            {},
            "suite mine: row 2 has no question, where suites.mine.max_bad_rows tolerates 0; correct",
        ),
    ],
)
def test_a_set_that_is_none_is_told_in_a_sentence(
    tmp_path: Path, rows: list[Any], columns: dict[str, str], sentence: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        read(write_jsonl(tmp_path / "a.jsonl", *rows), **columns)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_of_json_may_lack_what_others_have(tmp_path: Path) -> None:
    rows = [{"question": "x?", "answer": "1"}, {"question": "y?", "answer": "2", "level": 3}, {"question": "z?"}]
    found = read(write_jsonl(tmp_path / "a.jsonl", *rows), level="level", max_bad_rows=1)
    assert found.rows.select("expected_answer", "level").rows() == [("1", None), ("2", "3")]
    assert found.bad == ["row 3 has no reference answer: None"]


def test_a_level_that_is_missing_in_a_table_of_numbers_is_none(tmp_path: Path) -> None:
    """As pandas writes it: whole numbers beside NaN are fractions."""
    table = {"question": ["x?", "y?", "z?"], "answer": ["1", "2", "3"], "level": [3.0, float("nan"), 2.5]}
    pl.DataFrame(table).write_parquet(tmp_path / "a.parquet")
    found = read(SuiteSource(path=str(tmp_path / "a.parquet")), level="level")
    assert found.rows["level"].to_list() == ["3", None, "2.5"]


def test_an_answer_may_be_a_decimal_number(tmp_path: Path) -> None:
    answers = [Decimal("3.50"), Decimal("100.00"), Decimal("-0.25")]
    pl.DataFrame({"question": ["x?", "y?", "z?"], "answer": answers}).write_parquet(tmp_path / "a.parquet")
    found = read(SuiteSource(path=str(tmp_path / "a.parquet")))
    assert found.rows["expected_answer"].to_list() == ["3.5", "100", "-0.25"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_half_of_a_surrogate_pair_is_told_with_its_row(tmp_path: Path, name: str, column: str) -> None:
    good = {"question": "\U0001f600?", "answer": "1"}
    source = write_jsonl(tmp_path / name, good, {**good, column: "cut \ud83d"})
    with pytest.raises(
        PipelineError, match=r"suite mine: the file .* cannot be read \(row 2 holds half of a surrogate"
    ):
        read(source)
    assert read(write_jsonl(tmp_path / name, good)).rows["question"].to_list() == ["\U0001f600?"]


def test_so_many_bad_rows_as_are_tolerated_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [{"question": "x?", "answer": ["2", "3"]}, {"question": "y?", "answer": []}]
    found = read(write_jsonl(tmp_path / "a.jsonl", *rows), max_bad_rows=1)
    assert found.rows["expected_answer"].to_list() == ["2, 3"]
    assert found.bad == ["row 2 has no reference answer: []"]


def test_a_file_that_is_not_there_or_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"suite mine: the file .*none\.jsonl cannot be read \(No such file"):
        resolve_suite("mine", SuiteSource(path=str(tmp_path / "none.jsonl")))
    (tmp_path / "a.jsonl").write_text("[1]\n{")
    with pytest.raises(PipelineError, match=r"suite mine: the file .*a\.jsonl"):
        read(SuiteSource(path=str(tmp_path / "a.jsonl")))


def test_a_file_that_is_another_than_was_resolved_stops_the_run(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"question": "x?", "answer": "1"})
    version = resolve_suite("mine", source)
    write_jsonl(tmp_path / "a.jsonl", {"question": "x?", "answer": "2"})
    with pytest.raises(PipelineError, match=r"suite mine: the file .* changed while in use; run again"):
        read_suite("mine", source, SuiteColumns(), version)


def test_the_hub_is_read_at_the_commit_and_its_version_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitates the outermost call, `datasets.load_dataset(path, name, *, split, revision)`."""
    loaded = []

    def load_dataset(*place: Any, split: str, revision: str) -> list[dict[str, Any]]:
        loaded.append((*place, split, revision))
        return [{"question": "x?", "answer": "#### 1"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = SuiteSource(dataset="openai/gsm8k", config="main", commit=COMMIT)
    assert resolve_suite("mine", source) == f"commit:{COMMIT} main:test"
    assert read(source, extract="after ####").rows.height == 1
    assert loaded == [("openai/gsm8k", "main", "test", COMMIT)]


def test_a_hub_set_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*place: Any, **rest: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        PipelineError, match=r"suite mine: the data set a/b cannot be loaded at commit c+ \(no route\); "
    ):
        read(SuiteSource(dataset="a/b", commit=COMMIT))
