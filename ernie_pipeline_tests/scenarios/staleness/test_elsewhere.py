"""Scenarios 16 and 17: another machine with the same store; other settings. None of it makes anything stale."""

import shutil
from dataclasses import replace
from pathlib import Path

from ernie_pipeline_tests.scenarios.chain import ASSETS, FRESH, IN_PROCESS, artifacts, write_rows
from ernie_pipeline_tests.scenarios.homes import copy_objects
from ernie_pipeline_tests.scenarios.staleness.kills import Story
from ernie_pipeline_tests.scenarios.staleness.workplace import ROWS, Workplace

LIMITS = {"cpu_threads": 2, "time_limit_s": 3600, "memory_gib": 3.0, "kind": "A100"}


def test_another_machine_with_a_copy_of_the_store_and_the_same_registry_reuses_everything(
    story: Story, tmp_path: Path
) -> None:
    """Scenario 16. The copy has no MLflow of its own: the address of the first one is given.

    The run is scenario 17's as well: its rows lie elsewhere, `gpu` is configured, the number of threads is another.
    """
    home = tmp_path / "ci"
    shutil.copytree(story.place.home / "store", home / "store")
    copy_objects(story.place.home, home)
    place, registry = replace(story.place, home=home), f"sqlite:///{story.place.home / 'mlflow.db'}"
    planned = place.plan(MLFLOW_TRACKING_URI=registry)
    assert (planned.status, planned.todo) == FRESH
    source = write_rows(tmp_path / "others.jsonl", ROWS)
    before = artifacts(home)
    run = place.materialize(
        config=IN_PROCESS | {"resources": {"gpu": {"config": LIMITS}}},
        MLFLOW_TRACKING_URI=registry,
        ERNIE_PIPELINE_SOURCE=source,
        OMP_NUM_THREADS="2",
    )
    assert run.status == 0, run.output[-5000:]
    assert (sorted(run.reused), run.built) == (sorted(ASSETS), [])
    assert artifacts(home) == before


def test_other_paths_another_device_and_other_limits_make_nothing_stale(built: Workplace, tmp_path: Path) -> None:
    """Scenario 17: home, recipe and source file moved, another number of threads. All runs of `built` reuse so, too."""
    (tmp_path / "elsewhere").mkdir()
    moved = Workplace(tmp_path / "elsewhere" / "home", tmp_path / "elsewhere" / "another.toml", built.code)
    built.home.rename(moved.home)
    copy_objects(built.home, moved.home)
    built.recipe.rename(moved.recipe)
    source = write_rows(tmp_path / "elsewhere" / "others.jsonl", ROWS)
    planned = moved.plan(ERNIE_PIPELINE_SOURCE=source, OMP_NUM_THREADS="2")
    assert (planned.status, planned.todo) == FRESH
