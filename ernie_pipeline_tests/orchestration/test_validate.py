"""A recipe that cannot be read: `dagster definitions validate` fails with its sentence, a server opens all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNKNOWN = "recipe misspelled.toml: unknown key training.max_stepz; did you mean 'max_steps'?"
GONE = "recipe 'gone.toml' is neither a preset (best, demo, reference) nor a TOML file"


def dagster(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    (folder / "misspelled.toml").write_text('[base_model]\nname = "demo"\n[training]\nmax_stepz = 3\n')
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_"))}
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        env={**kept, "ERNIE_PIPELINE_HOME": str(folder / "home"), **variables},
        capture_output=True,
        text=True,
        cwd=folder,
    )


@pytest.mark.parametrize(
    ("variable", "value", "more", "sentence"),
    [
        ("ERNIE_PIPELINE_RECIPE", "misspelled.toml", [], UNKNOWN),
        ("ERNIE_PIPELINE_RECIPES", "demo,gone.toml", ["--load-with-grpc"], GONE),
    ],
)
def test_it_is_not_valid(variable: str, value: str, more: list[str], sentence: str, tmp_path: Path) -> None:
    run = dagster(tmp_path, "definitions", "validate", "-w", str(ROOT / "workspace.yaml"), *more, **{variable: value})
    assert run.returncode == 1, run.stdout + run.stderr
    before, found, _ = (run.stdout + run.stderr).partition(sentence)
    assert found, before
    assert "Stack Trace" not in before


def test_recipes_that_can_be_read_are_valid(tmp_path: Path) -> None:
    run = dagster(
        tmp_path,
        *("definitions", "validate", "-w", str(ROOT / "workspace.yaml")),
        ERNIE_PIPELINE_RECIPES="demo,reference",
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_other_recipes_are_there_where_it_is_opened_to_work(tmp_path: Path) -> None:
    run = dagster(
        tmp_path,
        *("asset", "list", "-m", "ernie_pipeline.definitions"),
        ERNIE_PIPELINE_RECIPES="demo,misspelled.toml,gone.toml",
    )
    assert run.returncode == 0, run.stderr
    for recipe in ("demo", "misspelled", "gone"):
        assert f"{recipe}/math_split" in run.stdout
