"""One's own rows through the real commands: init, the rows and the split, and the warning of a filter too narrow."""

import os
import re
import subprocess
import sys
from pathlib import Path

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, Run, materialize, plan

DATA_PART = "raw_nemotron,math_split"
NAMES = ("Anna", "Ben", "Carla", "Dmitri")
THINGS = ("apples", "marbles", "stamps")


def own_rows(path: Path) -> Path:
    """GSM8K's own form, in a CSV file."""
    lines = ["question,answer"]
    for n in range(60):
        name, thing = NAMES[n % 4], THINGS[n % 3]
        question = f"{name} has {n + 3} {thing}, then {7 * n + 2} more of them. How many {thing} has {name} now?"
        lines.append(f'"{question}","So it is <<a+b=c>>, which we add.\n#### {8 * n + 5}"')
    path.write_text("\n".join(lines) + "\n")
    return path


def data_part(home: Path, recipe: Path) -> Run:
    return materialize(home, recipe=recipe, select=DATA_PART, config=IN_PROCESS)


def test_init_s_recipe_runs_and_a_bound_too_narrow_warns_and_stops_nothing(tmp_path: Path) -> None:
    rows, recipe, home = own_rows(tmp_path / "sums.csv"), tmp_path / "sums.toml", tmp_path / "home"
    command = [sys.executable, "-m", "ernie_pipeline", "init", str(rows), "--base", "demo"]
    made = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "read as GSM8K" in made.stdout

    run = data_part(home, recipe)
    assert (run.status, run.built) == (0, ["raw_nemotron", "math_split"]), run.output[-3000:]
    assert "Asset check 'filters' on 'math_split' passed" in run.output
    assert plan(home, recipe=recipe).values["warnings"] == []

    narrow, text = tmp_path / "narrow.toml", recipe.read_text()
    bound = re.search(r"max_tokens = \d+ .*half of the rows have at most (\d+)", text)
    assert bound
    narrow.write_text(text.replace(bound[0], f"max_tokens = {int(bound[1]) - 1} # of which half of the rows have more"))
    run = data_part(home, narrow)
    assert (run.status, run.built) == (0, ["math_split"]), run.output[-3000:]
    assert "Asset check 'filters' on 'math_split' did not pass" in run.output
    assert "WARNING" in run.output
    [told] = plan(home, recipe=narrow).values["warnings"]
    assert "the filter max_tokens took" in told
    assert "split.max_tokens" in told

    again = data_part(home, narrow)
    assert (again.status, again.built) == (0, [])
    assert "Asset check 'filters' on 'math_split' did not pass" in again.output, "a reused split is judged too"
