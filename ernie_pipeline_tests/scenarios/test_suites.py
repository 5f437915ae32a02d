"""A suite by the real command line: both models answer it, side by side; a problem that is appended costs itself."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, Run, materialize, plan

SUITE = """
[suites.mine]
source = {{ path = "{path}" }}
question = "problem"
answer = "solution"
extract = "after ####"
level = "level"
max_new_tokens = 16
samples = 3
"""
PARTS = ("problems", "base", "adapter", "comparison")
TRAINING = demo_rows(300, seed=0)
"""The rows that the quick recipe trains on: one of them is in the suite."""


def write_set(file: Path, count: int) -> None:
    rows = [*demo_rows(12, seed=5)[: count - 1], TRAINING[0]]
    problems = [
        {"problem": row["question"], "solution": f"Because.\n#### {row['expected_answer']}", "level": number % 2}
        for number, row in enumerate(rows)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in problems))


def sampled(run: Run) -> list[tuple[str, str]]:
    return sorted({*re.findall(r"(suite_mine_\w+) - problems sampled (\d+),", run.output)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("suites")
    (place / "recipe.toml").write_text(QUICK_RECIPE + SUITE.format(path=place / "set.jsonl"))
    return place


def build(folder: Path) -> Run:
    select = "*suite_mine_comparison"
    return materialize(folder / "home", recipe=folder / "recipe.toml", select=select, config=IN_PROCESS)


def artifact(folder: Path, part: str) -> Path:
    """The newest one."""
    return max((folder / "home" / "store" / f"suite_mine_{part}").glob("[!.]*"), key=lambda each: each.stat().st_mtime)


def test_a_suite_is_answered_by_both_and_a_problem_that_comes_costs_itself(folder: Path) -> None:
    write_set(folder / "set.jsonl", 9)
    first = build(folder)
    assert first.status == 0, first.output
    assert {f"suite_mine_{part}" for part in PARTS} <= {*first.built}
    assert "base_evaluation" not in first.built
    assert sampled(first) == [("suite_mine_adapter", "9"), ("suite_mine_base", "9")]
    comparison = json.loads((artifact(folder, "comparison") / "comparison.json").read_text())
    assert (comparison["problems"], comparison["samples"]) == (9, 3)
    assert comparison["contamination"]["contaminated"] == 1, "the training row that is in it"
    assert pl.read_parquet(artifact(folder, "adapter") / "attempts.parquet").height == 9 * 4
    todo = plan(folder / "home", recipe=folder / "recipe.toml").todo
    assert not any(name.startswith("suite") for name in todo)

    write_set(folder / "set.jsonl", 10)
    todo = plan(folder / "home", recipe=folder / "recipe.toml").todo
    assert todo["suite_mine_problems"].startswith("stale: input suite_mine_set ")
    assert todo["suite_mine_base"] == "waiting: waits for suite_mine_problems"
    second = build(folder)
    assert second.status == 0, second.output
    assert {*second.built} == {f"suite_mine_{part}" for part in PARTS}
    assert sampled(second) == [("suite_mine_adapter", "1"), ("suite_mine_base", "1")]


def test_a_set_without_the_column_fails_before_a_model_is_loaded(folder: Path) -> None:
    (folder / "set.jsonl").write_text('{"question": "x?", "solution": "#### 1"}\n')
    run = materialize(folder / "home", recipe=folder / "recipe.toml", select="suite_mine_problems+", config=IN_PROCESS)
    assert run.status == 1
    assert run.failure == (
        "suite mine has no column 'problem' among question, solution; set suites.mine.question to one of them"
    )
    assert "loading demo" not in run.output
