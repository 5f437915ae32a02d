"""A sampler that is killed at any moment goes on where it was: no attempt twice, none lost."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline_tests.solutions.conftest import Rounds
from ernie_pipeline_tests.training.processes import Report, run

FOUR_AT_A_TIME = ExecutionOverrides(generation_rows=4)


@pytest.mark.parametrize(("moment", "made"), [("made 8 of 20", 8), ("graded", 20)])
def test_killed_it_goes_on_and_ends_as_if_undisturbed(
    rounds: Rounds, sums: list[dict[str, Any]], split_of: Callable[..., Path], moment: str, made: int
) -> None:
    five = {"split": split_of("five", sums[:5])}

    def work(report: Report) -> None:
        rounds.report = report
        rounds("killed", execution=FOUR_AT_A_TIME, **five)

    def kill(line: str) -> None:
        if line.startswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    assert run(work, kill).code == -signal.SIGKILL
    before = rounds.kept
    assert len(before) == made
    told: list[str] = []
    rounds.report = lambda line, values: told.append(line)
    job = rounds("again", **five)
    [said] = [line for line in told if line.startswith("problems sampled ")]
    assert said.endswith(f": {20 - made} attempts to make, {made} kept")
    found = json.loads((job.out / "reports" / "run.json").read_text())
    assert (found["attempts_sampled"], found["attempts_reused"]) == (20 - made, made)
    files = list((rounds.folder / "set").glob("*.jsonl"))
    assert sum(len(file.read_text().splitlines()) for file in files) == len(rounds.kept) == 20, "none twice, none lost"
    assert rounds.kept.items() >= before.items()
    undisturbed = Rounds(rounds.job.model_copy(update={"rows": None}), rounds.folder)("undisturbed", **five)
    assert (undisturbed.out / "attempts.parquet").read_bytes() == (job.out / "attempts.parquet").read_bytes()
