"""A recipe's suites: what is said of one that cannot be, before anything is read; and the examples."""

from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.demo.problems import INSTRUCTION as DEMO_INSTRUCTION
from ernie_pipeline.recipe.load import load_recipe, parse_recipe
from ernie_pipeline.recipe.suites import INSTRUCTION
from ernie_pipeline.utils.errors import PipelineError

FILE = {"source": {"path": "mine.jsonl"}}
COMMIT = "c" * 40


def error_of(suites: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        parse_recipe({"suites": suites}, where="recipe")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"dataset": "openai/gsm8k"}, "is the data set openai/gsm8k with no commit; give the 40 hex digits of one"),
        ({"dataset": "a/b", "commit": "main"}, "is the data set a/b with commit = 'main', which is none; give the 40"),
        ({"dataset": "a/b", "path": "c.jsonl"}, "names both a path and a dataset; give it one of them"),
        ({}, "names neither a path nor a dataset; give it one of them"),
        ({"path": "a.csv", "commit": COMMIT}, "is the file a.csv, which has no config and no commit; drop them"),
    ],
)
def test_a_source_that_is_none_is_told_with_its_suite(source: dict[str, str], sentence: str) -> None:
    assert error_of({"mine": {"source": source}}).startswith(f"recipe: suites.mine.source {sentence}")


@pytest.mark.parametrize("name", ["GSM8K", "math-500", "500", "a.b", "", "a" * 65])
def test_a_name_that_is_no_asset_s_is_told(name: str) -> None:
    assert f"suites.{name}: a suite is named by small letters, digits and _" in error_of({name: FILE})


def test_a_suite_named_twice_is_told(tmp_path: Path) -> None:
    table = '[suites.mine]\nsource = { path = "a.jsonl" }\n'
    (tmp_path / "recipe.toml").write_text(table + table)
    with pytest.raises(
        PipelineError, match=r"recipe\.toml: not valid TOML \(Cannot declare \('suites', 'mine'\) twice"
    ):
        load_recipe(str(tmp_path / "recipe.toml"))


@pytest.mark.parametrize(
    ("suites", "sentence"),
    [
        ({"mine": {**FILE, "anwser": "b"}}, "unknown key suites.mine.anwser; did you mean 'answer'?"),
        ({"mine": {"source": {"pth": "a"}}}, "unknown key suites.mine.source.pth; did you mean 'path'?"),
        ({"mine": {}}, "suites.mine.source = {}: field required"),
        ({"mine": 3}, "suites.mine = 3 is no table; write [suites.mine] and its keys below it"),
        (3, "suites = 3 is no table; write [suites] and its keys below it"),
        ({"mine": {**FILE, "extract": "after "}}, "suites.mine.extract = 'after ' names no mark; write one behind it"),
        ({"mine": {**FILE, "extract": "("}}, 'suites.mine.extract = \'(\' is neither "boxed" nor "after ####" nor a'),
        (
            {"mine": {**FILE, "reference": "after_hashes"}},
            'suites.mine.reference is called extract now; write extract = "after ####"',
        ),
        (
            {"mine": {**FILE, "reference": "list"}},
            "suites.mine.reference is called extract now; leave both out",
        ),
        ({"mine": {**FILE, "temperature": 0}}, "suites.mine.temperature = 0: input should be greater than or equal to"),
        ({"mine": {**FILE, "samples": -1}}, "suites.mine.samples = -1: input should be greater than or equal to 0"),
    ],
)
def test_a_key_that_is_wrong_is_told(suites: Any, sentence: str) -> None:
    assert sentence in error_of(suites)


def test_the_examples_are_suites() -> None:
    recipe = load_recipe(str(Path(__file__).parents[2] / "ernie_pipeline" / "recipe" / "examples" / "suites.toml"))
    forms = {name: suite.extract for name, suite in recipe.suites.items()}
    assert forms == {
        "gsm8k": "after ####",
        "math_500": "",
        "aime_2024": "",
        "olympiad_bench": "",
        "svamp": "",
        "math_test": "boxed",
    }
    assert recipe.suites["svamp"].question == ("Body", "Question")


def test_the_presets_have_no_suites() -> None:
    assert not any(load_recipe(preset).suites for preset in ("demo", "reference", "best"))


def test_a_suite_asks_as_the_training_rows_do() -> None:
    assert INSTRUCTION == DEMO_INSTRUCTION
