"""What the README sets keeps Dagster's remark quiet that each of its commands is superseded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (["definitions", "validate", "-w", str(ROOT / "workspace.yaml")], ["asset", "materialize", "--select", "no"])


def said(command: list[str], folder: Path, **variables: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_", "PYTHONWARNINGS"))}
    more = [] if command[0] == "definitions" else ["-m", "ernie_pipeline.definitions"]
    run = subprocess.run(
        [sys.executable, "-m", "dagster", *command, *more],
        env={**kept, "ERNIE_PIPELINE_HOME": str(folder / "home"), **variables},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return run.stdout + run.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=["validate", "materialize"])
def test_a_command_of_the_readme_is_quiet(command: list[str], tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(line in readme for line in ("dagster asset materialize --select", "dagster dev -w workspace.yaml"))
    [value] = re.findall(r"PYTHONWARNINGS=(\S+)", readme)
    assert "is superseded" in said(command, tmp_path), "else there is nothing to keep quiet any more"
    told = said(command, tmp_path, PYTHONWARNINGS=value)
    assert ("superseded" in told, "BetaWarning" in told) == (False, False)
