"""Scenarios 2, 3, 4 and 13: the code changes, in a copy of the package, or a library's version does."""

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

from ernie_pipeline_tests.scenarios.chain import ASSETS, BELOW_SPLIT, FRESH
from ernie_pipeline_tests.scenarios.staleness.workplace import Workplace


def test_comments_docstrings_and_formatting_change_nothing(built_with_code: Workplace) -> None:
    """Scenario 2: every module is formatted anew, without its comments, and has another docstring."""
    place = built_with_code
    for file in (place.code / "ernie_pipeline").rglob("*.py"):
        tree = ast.parse(file.read_text())
        tree.body = tree.body[1:] if ast.get_docstring(tree) else tree.body
        file.write_text(f'"""Another docstring."""\n\n# and a comment\n{ast.unparse(tree)}\n')
    planned = place.plan()
    assert (planned.status, planned.todo) == FRESH


def test_a_line_of_a_helper_two_imports_away_rebuilds_its_stage_and_the_same_output_ends_it_there(
    built_with_code: Workplace,
) -> None:
    """Scenarios 3 and 4: `data/make_raw.py` imports `read/reading.py`, and that `read/decode.py`; cutoff in one run."""
    place = built_with_code
    place.edit_code("data/read/decode.py", "FEW_BRACKETS = 200", "FEW_BRACKETS = 100")
    planned = place.plan()
    assert planned.status == 3
    assert planned.todo.pop("raw_nemotron") == "stale: code ernie_pipeline.data.read.decode changed"
    assert all(why.startswith("waiting: waits for ") for why in planned.todo.values())
    assert set(planned.todo) == {"math_split", *BELOW_SPLIT}
    run = place.materialize()
    assert run.status == 0, run.output[-5000:]
    assert run.built == ["raw_nemotron"]
    assert sorted(run.reused) == sorted(ASSETS[1:])
    planned = place.plan()
    assert (planned.status, planned.todo) == FRESH


@pytest.mark.parametrize(
    ("module", "stale"),
    [
        ("data/normalize/answers.py", {"math_split"}),
        ("models/quantize.py", set(BELOW_SPLIT)),
        ("evaluation/evaluate.py", {"base_evaluation", "adapter_evaluation"}),
        ("orchestration/plots.py", set()),
    ],
)
def test_the_plan_names_a_changed_module_at_the_stages_that_reach_it_and_at_no_other(
    built_with_code: Workplace, module: str, stale: set[str]
) -> None:
    """Scenario 3."""
    with (built_with_code.code / "ernie_pipeline" / module).open("a") as file:
        file.write("\nNEW = 1\n")
    changed = f"stale: code ernie_pipeline.{module.removesuffix('.py').replace('/', '.')} changed"
    todo = built_with_code.plan().todo
    assert {asset for asset, why in todo.items() if why == changed} == stale
    assert all(why.startswith("waiting: ") for asset, why in todo.items() if asset not in stale)


def test_a_library_that_decides_an_output_makes_it_stale_and_another_does_not(built: Workplace, tmp_path: Path) -> None:
    """Scenario 13. What a run then builds: the helper's line above."""
    other, decisive = tmp_path / "other", tmp_path / "decisive"
    installed(other, "matplotlib", "99.0")
    installed(decisive, "datasets", "99.0")
    planned = built.plan(PYTHONPATH=f"{other}:{built.code}")
    assert (planned.status, planned.todo) == FRESH

    path = f"{decisive}:{built.code}"
    planned = built.plan(PYTHONPATH=path)
    assert planned.status == 3
    assert planned.todo["raw_nemotron"] == f"stale: library datasets {version('datasets')} -> 99.0"
    assert {why.partition(":")[0] for name, why in planned.todo.items() if name != "raw_nemotron"} == {"waiting"}


def installed(folder: Path, library: str, number: str) -> None:
    """What pip leaves of a library's version, in a folder for PYTHONPATH."""
    metadata = folder / f"{library}-{number}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: {number}\n")
