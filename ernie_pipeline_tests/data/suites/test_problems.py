"""A suite's problems in the chat template, which are chosen, and what of them the training rows ask."""

from pathlib import Path

import polars as pl
import pytest

from ernie_pipeline.data.suites.contamination import contaminated, write_contamination
from ernie_pipeline.data.suites.job import SuiteProblemsJob, read
from ernie_pipeline.data.suites.problems import SuiteProblems, make_problems
from ernie_pipeline.data.suites.read import ROWS, resolve_suite
from ernie_pipeline.data.tables.contracts import read_checked
from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, load_tokenizer
from ernie_pipeline.recipe.suites import SuiteColumns, SuiteSource

QUESTIONS = [f"A farmer sells {n} baskets of {n + 5} apples; how many apples is that?" for n in range(20)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(BASE))


def rows(questions: list[str]) -> pl.DataFrame:
    table = [(number, question, str(number), "1", None) for number, question in enumerate(questions, start=1)]
    return pl.DataFrame(table, schema=ROWS, orient="row")


def test_a_prompt_is_the_template_s_with_the_suite_s_own_instruction(tokenizer: Tokenizer) -> None:
    problems = make_problems(rows(["Why?"]), SuiteColumns(instruction="Box it: "), tokenizer)  # type: ignore[arg-type]
    told = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Box it: Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert problems["prompt_text"].to_list() == [told]
    assert problems["kind"].to_list() == ["integer"]


def test_which_rows_are_chosen_does_not_change_when_others_come(tokenizer: Tokenizer) -> None:
    def chosen(questions: list[str]) -> set[str]:
        return {*make_problems(rows(questions), SuiteColumns(rows=8), tokenizer)["question"]}  # type: ignore[arg-type]

    before, after = chosen(QUESTIONS[:-1]), chosen(QUESTIONS)
    assert len(before) == len(after) == 8
    assert len(before - after) <= 1
    assert {*QUESTIONS[:8]} != before  # no first ones, which may be the easy ones


def test_equal_rows_are_problems_of_their_own(tokenizer: Tokenizer) -> None:
    twice = pl.concat([rows(["Why?"]), rows(["Why?"])])
    first, second = make_problems(twice, SuiteColumns(), tokenizer)["row_id"]  # type: ignore[arg-type]
    assert second == f"{first}-2"


def test_a_job_writes_problems_that_keep_their_contract(tmp_path: Path) -> None:
    rows(QUESTIONS).rename({"expected_answer": "answer"}).write_csv(tmp_path / "a.csv")
    (tmp_path / "out").mkdir()
    source = SuiteSource(path=str(tmp_path / "a.csv"))
    job = SuiteProblemsJob(
        name="mine",
        source=source,
        columns=SuiteColumns(level="level"),
        version=resolve_suite("mine", source),
        checkpoint=str(BASE),
        revision=None,
        out=tmp_path / "out",
    )
    read(job, lambda line, values: None)
    found = read_checked(SuiteProblems, tmp_path / "out" / "problems.parquet")
    assert found["question"].to_list() == QUESTIONS
    assert found["level"].to_list() == ["1"] * 20


def test_what_a_training_row_asks_is_found_however_it_is_spelled(tmp_path: Path) -> None:
    asked = "A farmer sells $7$ baskets of 12 apples;  how many apples is that"
    others = [f"Find the area of a circle of radius {n} that touches a line." for n in range(30)]
    training = pl.DataFrame({"row_id": [f"{n:016x}" for n in range(31)], "question": [*others, asked]})
    problems = pl.DataFrame({"row_id": [f"p{n}" for n in range(21)], "question": [*QUESTIONS, QUESTIONS[7].upper()]})
    found = contaminated(problems, training, 0.6)
    assert found.select("row_id", "training_row_id").rows() == [("p7", f"{30:016x}"), ("p20", f"{30:016x}")]
    assert found["training_question"].to_list() == [asked, asked]
    problems.write_parquet(tmp_path / "problems.parquet")
    training.write_parquet(tmp_path / "train.parquet")
    assert write_contamination(tmp_path, tmp_path, 0.6, tmp_path) == 31
    assert pl.read_parquet(tmp_path / "contamination.parquet").equals(found)


def test_nothing_is_found_where_nothing_is_asked() -> None:
    training = pl.DataFrame({"row_id": ["a"], "question": ["How tall is a tower of 300 cubes?"]})
    problems = pl.DataFrame({"row_id": ["p"], "question": ["Simplify the fraction 12/30."]})
    assert contaminated(problems, training, 0.6).height == 0
