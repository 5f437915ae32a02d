"""Scenarios 5, 6 and 12: the rows change, or the base model does."""

import shutil
from pathlib import Path

from ernie_pipeline.demo import BASE
from ernie_pipeline_tests.scenarios.chain import BELOW_SPLIT, FRESH, row, write_rows
from ernie_pipeline_tests.scenarios.staleness.workplace import DROPPED, ROWS, Workplace, short

DATA_PART = "raw_nemotron,math_split"
KEPT = row("What is 1001 + 1001 + 1001?", "3003")


def test_appended_rows_that_the_filters_drop_make_the_raw_rows_stale_and_all_below_wait(
    built: Workplace, tmp_path: Path
) -> None:
    """Scenario 5. The run that rebuilds the data for such a row, and nothing below: `test_unattended.py`."""
    planned = built.plan(ERNIE_PIPELINE_SOURCE=write_rows(tmp_path / "more.jsonl", [*ROWS, DROPPED]))
    assert planned.status == 3
    why = planned.todo.pop("raw_nemotron")
    assert why.startswith("stale: input nemotron_source ")
    assert why.endswith(short(planned.values["sources"]["nemotron_source"]))
    assert planned.todo["math_split"] == "waiting: waits for raw_nemotron"
    assert set(planned.todo) == {"math_split", *BELOW_SPLIT}


def test_an_appended_row_that_stays_makes_everything_below_the_split_stale(built: Workplace, tmp_path: Path) -> None:
    """Scenario 6."""
    source = write_rows(tmp_path / "more.jsonl", [*ROWS, KEPT])
    before = short(built.plan().asset("math_split")["data_version"])
    run = built.materialize(DATA_PART, ERNIE_PIPELINE_SOURCE=source)
    assert (run.status, run.built) == (0, DATA_PART.split(",")), run.output[-5000:]
    planned = built.plan(ERNIE_PIPELINE_SOURCE=source)
    changed = f"stale: input math_split {before} -> {short(planned.asset('math_split')['data_version'])}"
    assert planned.status == 3
    assert planned.todo == dict.fromkeys(BELOW_SPLIT, changed)


def test_a_changed_file_of_the_base_model_makes_all_but_the_raw_rows_stale(built: Workplace, tmp_path: Path) -> None:
    """Scenario 12. A copy of the checkpoint is the same model, whatever its name; one more byte of it is another."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(BASE, checkpoint)
    built.edit_recipe('name = "demo"', f'name = "{checkpoint}"')
    planned = built.plan()
    assert (planned.status, planned.todo) == FRESH

    before = short(planned.values["sources"]["base_model"])
    (checkpoint / "generation_config.json").write_bytes((BASE / "generation_config.json").read_bytes() + b"\n")
    planned = built.plan()
    changed = f"stale: input base_model {before} -> {short(planned.values['sources']['base_model'])}"
    assert planned.status == 3
    assert planned.todo == dict.fromkeys(("math_split", *BELOW_SPLIT), changed)


def test_a_named_benchmark_set_and_a_change_of_it_make_the_split_stale(built: Workplace, tmp_path: Path) -> None:
    benchmark = tmp_path / "benchmark.txt"
    benchmark.write_text("How many bees live in a hive of forty cells?\n")
    built.edit_recipe("[split]", f'[benchmarks]\nsets = ["{benchmark}"]\n\n[split]')
    versions = []
    for question in ("How many ants carry nine leaves?\n", "How many ants carry ten leaves?\n"):
        benchmark.write_text(question)
        planned = built.plan()
        versions.append(planned.values["sources"]["benchmark_sets"])
        assert planned.todo["math_split"] == f"stale: input benchmark_sets none -> {short(versions[-1])}"
    assert versions[0] != versions[1]
