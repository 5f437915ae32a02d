import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.pins import KEPT_S, Pins


def test_a_value_is_made_once_in_a_run_and_anew_in_the_next(tmp_path: Path) -> None:
    assert Pins(tmp_path, "run1").pin("source", lambda: "a") == "a"
    assert Pins(tmp_path, "run1").pin("source", lambda: "b") == "a"
    assert Pins(tmp_path, "run1").pin("recipe", lambda: "c") == "c"
    assert Pins(tmp_path, "run2").pin("source", lambda: "b") == "b"


def test_a_value_that_is_no_longer_valid_is_made_anew(tmp_path: Path) -> None:
    pins = Pins(tmp_path, "run1")
    pins.pin("by", lambda: "a", valid_s=60)
    assert pins.pin("by", lambda: "b", valid_s=60) == "a"
    os.utime(pins.folder / "by", (time.time() - 61,) * 2)
    assert pins.pin("by", lambda: "b", valid_s=60) == "b"


def test_an_error_pins_nothing(tmp_path: Path) -> None:
    def fail() -> str:
        raise ValueError("the hub does not answer")

    with pytest.raises(ValueError, match="hub"):
        Pins(tmp_path, "run1").pin("source", fail)
    assert Pins(tmp_path, "run1").pin("source", lambda: "a") == "a"


RACE = """
import os, sys, time
from pathlib import Path
from ernie_pipeline.store.pins import Pins

def make():
    time.sleep(0.5)
    return str(os.getpid())

print(Pins(Path(sys.argv[1]), "run1").pin("source", make))
"""


def test_steps_that_ask_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    steps = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({step.communicate()[0] for step in steps}) == 1
    assert [file.name for file in (tmp_path / ".runs" / "run1").iterdir()] == ["source"]


def test_runs_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    for run in ("old", "young"):
        Pins(tmp_path, run).pin("source", lambda: "a")
    os.utime(tmp_path / ".runs" / "old", (time.time() - KEPT_S - 1,) * 2)
    Pins(tmp_path, "new").pin("source", lambda: "b")
    assert sorted(folder.name for folder in (tmp_path / ".runs").iterdir()) == ["new", "young"]


def test_a_source_and_a_recipe_that_change_during_a_run_are_for_the_next_one(tmp_path: Path) -> None:
    rows, recipe = tmp_path / "rows.jsonl", tmp_path / "recipe.toml"
    settings = Settings(tmp_path / "home", str(recipe), str(rows), "sqlite:///unused.db")

    def seen(run: str) -> tuple[str, int]:
        chain = open_chain(settings, run=run)
        return chain.version("nemotron_source"), chain.recipe.training.max_steps

    rows.write_text("{}\n")
    recipe.write_text("[training]\nmax_steps = 1\n")
    before = seen("run1")
    rows.write_text("{}\n{}\n")
    recipe.write_text("[training]\nmax_steps = 2\n")
    assert seen("run1") == before
    version, steps = seen("run2")
    assert version != before[0]
    assert (before[1], steps) == (1, 2)
