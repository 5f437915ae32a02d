"""The recipe for a few rows of one's own in docs/recipes.md, as it stands there, through `ernie run`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from ernie_pipeline_tests.scenarios.chain import ASSETS

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
HEADING = "## A recipe for a few rows of your own\n"


def blocks() -> list[str]:
    """The indented blocks below the heading."""
    part = PAGE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    return [dedent(found).strip() + "\n" for found in re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", part)]


def run(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_", "MLFLOW_"))}
    command = [sys.executable, "-m", "ernie_pipeline", "run", "--recipe", "few.toml", "--home", "home", *options]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)


def test_it_runs_as_it_stands_and_a_program_reads_what_came_of_it(tmp_path: Path) -> None:
    rows, recipe = blocks()
    (tmp_path / "rows.csv").write_text(rows)
    (tmp_path / "few.toml").write_text(recipe)
    done = run(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["exit_status"], told["fresh"], told["failures"]) == (0, True, [])
    assert {*told["built"]} == {*ASSETS}
    assert told["assets"] == dict.fromkeys(ASSETS, "fresh")
    assert (told["recipe"], told["home"]) == ("few.toml", str(tmp_path / "home"))
    assert told["rows"]["train"] + told["rows"]["evaluation"] == len(rows.splitlines()) - 1, "none is dropped"
    assert (told["registered"]["name"], told["registered"]["version"]) == ("few", "1")
    assert told["base"]["rows"] == told["rows"]["evaluation"]
    assert "gain" in told["comparison"]

    assert re.search(r"^registered_model +built +in ", done.stderr, re.MULTILINE)
    assert re.search(r"^accuracy  \d+\.\d % \(\d", done.stderr, re.MULTILINE)
    log = Path(told["log"]).read_text()
    for said in (
        "files, ",
        "loading models:/few/1 back",
        "logits compared with those of the training",
        "asking the gate",
    ):
        assert re.search(rf"INFO.* - registered_model - .*{said}", log), said
    assert re.search(r"accuracy \d+\.\d % \(", log)
    assert not re.search(r"accuracy \d+\.\d%", log)

    again = run(tmp_path, "--json")
    assert (again.returncode, json.loads(again.stdout)["built"]) == (0, [])
