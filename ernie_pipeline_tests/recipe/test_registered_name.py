"""A model of other rows gets another name in the registry, and presets and named recipes keep theirs."""

from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.recipe.registered_name import called
from ernie_pipeline.utils.errors import PipelineError

NEMOTRON = "nvidia/Nemotron-RL-math-OpenMathReasoning"


def name(recipe: str, source: str | None = None) -> str:
    return load_recipe(recipe, source).registry.model_name


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_presets_keep_their_names() -> None:
    assert [name(preset) for preset in ("demo", "reference", "best")] == ["ernie-math-demo", "ernie-math", "ernie-math"]
    assert name("reference", NEMOTRON) == "ernie-math"


@pytest.mark.parametrize(
    ("preset", "source", "wanted"),
    [
        ("demo", "./rows.jsonl", "ernie-math-demo-rows"),
        ("reference", "data/My rows.csv.gz", "ernie-math-my-rows"),
        ("reference", "openai/gsm8k/main", "ernie-math-gsm8k"),
        ("best", "openai/gsm8k/main", "ernie-math-gsm8k"),
        ("best", "openai/gsm8k/socratic", "ernie-math-gsm8k-socratic"),
    ],
)
def test_other_rows_by_the_environment_have_a_name_of_their_own(preset: str, source: str, wanted: str) -> None:
    assert name(preset, source) == wanted


def test_a_recipe_without_a_name_is_called_by_its_rows(tmp_path: Path) -> None:
    assert name(recipe_file(tmp_path, '[source]\nkind = "file"\npath = "a/rows.csv"\n')) == "ernie-math-rows"
    assert name(recipe_file(tmp_path, f'[source]\nkind = "hub"\ndataset = "{NEMOTRON}"\n')) == "ernie-math"
    assert name(recipe_file(tmp_path, "")) == "ernie-math-demo"


def test_a_name_of_one_s_own_stands_wherever_the_rows_lie(tmp_path: Path) -> None:
    mine = recipe_file(tmp_path, '[source]\nkind = "file"\npath = "a.csv"\n[registry]\nmodel_name = "mine"\n')
    assert name(mine) == "mine"
    assert name(mine, "a.csv") == "mine"
    assert name(mine, "elsewhere/b.csv") == "mine"


def test_problems_of_another_seed_are_other_rows(tmp_path: Path) -> None:
    source = '[source]\nkind = "demo"\nseed = {seed}\nrows = 9\n'
    assert name(recipe_file(tmp_path, source.format(seed=0))) == "ernie-math-demo"
    assert name(recipe_file(tmp_path, source.format(seed=7))) == "ernie-math-demo-seed-7"
    copy = recipe_file(tmp_path, source.format(seed=7) + '[registry]\nmodel_name = "ernie-math-demo"\n')
    with pytest.raises(PipelineError, match=r'is that of a preset, .* such as "ernie-math-demo-seed-7"'):
        load_recipe(copy)


@pytest.mark.parametrize("taken", ["ernie-math-demo", "ernie-math"])
def test_a_preset_s_name_with_other_rows_is_refused_in_one_sentence(tmp_path: Path, taken: str) -> None:
    copy = recipe_file(tmp_path, f'[source]\nkind = "file"\npath = "a.csv"\n[registry]\nmodel_name = "{taken}"\n')
    with pytest.raises(PipelineError, match=rf'"{taken}" is that of a preset, .* such as "ernie-math-a"') as caught:
        load_recipe(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"kind": "file", "path": "/d/Grade 3.csv"}, "grade-3"),
        ({"kind": "file", "path": "/d/rows.v2.jsonl.gz"}, "rows"),
        ({"kind": "hub", "dataset": "a/B_c"}, "b-c"),
        ({"kind": "file", "path": "/d/\u6570\u5b66.csv"}, "rows"),
        ({}, "demo"),
        ({"kind": "demo", "seed": 7}, "demo-seed-7"),
        ({"kind": "hub", "dataset": "openai/gsm8k", "config": "main"}, "gsm8k"),
        ({"kind": "hub", "dataset": "openai/gsm8k", "config": "socratic"}, "gsm8k-socratic"),
        ({"kind": "hub", "dataset": "gsm8k"}, "gsm8k"),
    ],
)
def test_what_rows_are_called(source: dict[str, Any], wanted: str) -> None:
    assert called(source) == wanted
