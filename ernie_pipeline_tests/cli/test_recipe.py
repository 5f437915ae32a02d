"""`recipe show | diff | check`."""

import json
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe.load import PRESETS, load_recipe
from ernie_pipeline_tests.scenarios.chain import QUICK_RECIPE

SUITES = (PRESETS.parent / "examples" / "suites.toml").read_text()


@pytest.mark.parametrize("name", sorted(each.stem for each in PRESETS.glob("*.toml")))
def test_what_is_shown_is_a_recipe_that_says_the_same(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", "show", name]) == 0
    (tmp_path / "shown.toml").write_text(capsys.readouterr().out)
    assert load_recipe(str(tmp_path / "shown.toml")) == load_recipe(name)


def test_tables_within_tables_come_back_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "suites.toml").write_text(f"{QUICK_RECIPE}\n{SUITES}")
    assert main(["recipe", "show", str(tmp_path / "suites.toml")]) == 0
    (tmp_path / "shown.toml").write_text(capsys.readouterr().out)
    shown = load_recipe(str(tmp_path / "shown.toml"))
    assert shown == load_recipe(str(tmp_path / "suites.toml"))
    assert shown.suites


def test_keys_that_differ_are_told_each_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(QUICK_RECIPE)
    (tmp_path / "b.toml").write_text(QUICK_RECIPE.replace("max_steps = 2", "max_steps = 5"))
    a, b = str(tmp_path / "a.toml"), str(tmp_path / "b.toml")
    assert main(["recipe", "diff", a, b]) == 3
    head, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (head, lines) == (["key", a, b], [["training.max_steps", "2", "5"]])
    assert main(["recipe", "diff", a, "--recipe", b, "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"training.max_steps": {"before": 2, "after": 5}}
    assert main(["recipe", "diff", a, a]) == 0
    assert capsys.readouterr().out == "They say the same.\n"


def test_a_recipe_is_checked_with_what_it_is_built_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    file = tmp_path / "own.toml"
    file.write_text(QUICK_RECIPE)
    assert main(["recipe", "check", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sources"]["base_model"].startswith("sha256:")
    file.write_text(QUICK_RECIPE.replace("max_steps", "max_step"))
    assert main(["recipe", "check", str(file)]) == 1
    assert "unknown key training.max_step; did you mean 'max_steps'?" in capsys.readouterr().err
    file.write_text(QUICK_RECIPE.replace('kind = "demo"\nrows = 300', 'kind = "file"\npath = "/nowhere/rows.jsonl"'))
    assert main(["recipe", "check", str(file)]) == 1
    assert "source file /nowhere/rows.jsonl does not exist" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
