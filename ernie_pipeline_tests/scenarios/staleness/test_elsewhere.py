"""Scenarios 16 and 17: another machine with the same store; other settings. None of it makes anything stale."""

import shutil
from dataclasses import replace
from pathlib import Path

from ernie_pipeline_tests.scenarios.chain import ASSETS, FRESH, IN_PROCESS, artifacts, write_rows
from ernie_pipeline_tests.scenarios.staleness.kills import Story
from ernie_pipeline_tests.scenarios.staleness.workplace import ROWS, Workplace


def test_another_machine_with_a_copy_of_the_store_and_the_same_registry_reuses_everything(
    story: Story, tmp_path: Path
) -> None:
    """Scenario 16. The copy has no MLflow of its own: the address of the first one is given."""
    home = tmp_path / "ci"
    shutil.copytree(story.place.home / "store", home / "store")
    place, registry = replace(story.place, home=home), f"sqlite:///{story.place.home / 'mlflow.db'}"
    before = artifacts(home)
    run = place.materialize(MLFLOW_TRACKING_URI=registry)
    assert run.status == 0, run.output[-5000:]
    assert (sorted(run.reused), run.built) == (sorted(ASSETS), [])
    assert artifacts(home) == before
    planned = place.plan(MLFLOW_TRACKING_URI=registry)
    assert (planned.status, planned.todo) == FRESH


def test_other_paths_another_device_and_other_limits_make_nothing_stale(built: Workplace, tmp_path: Path) -> None:
    """Scenario 17: home, recipe and source file moved, `gpu` configured, another number of threads."""
    (tmp_path / "elsewhere").mkdir()
    moved = Workplace(tmp_path / "elsewhere" / "home", tmp_path / "elsewhere" / "another.toml", built.code)
    built.home.rename(moved.home)
    built.recipe.rename(moved.recipe)
    source = write_rows(tmp_path / "elsewhere" / "others.jsonl", ROWS)
    settings = {"ERNIE_PIPELINE_SOURCE": source, "OMP_NUM_THREADS": "2"}
    planned = moved.plan(**settings)
    assert (planned.status, planned.todo) == FRESH
    limits = {"cpu_threads": 2, "time_limit_s": 3600, "memory_gib": 3.0, "kind": "A100"}
    before = artifacts(moved.home)
    run = moved.materialize(config=IN_PROCESS | {"resources": {"gpu": {"config": limits}}}, **settings)
    assert run.status == 0, run.output[-5000:]
    assert (sorted(run.reused), run.built) == (sorted(ASSETS), [])
    assert artifacts(moved.home) == before
