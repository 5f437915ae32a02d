"""The table of training's figures, by the command that a person runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TRAINING = Path(__file__).parents[2] / "benchmarks" / "training"
BEFORE = {"tokens_per_s": 10000.0, "peak_gpu_gib": 34.0, "loss": 4.6}


def row(commit: str, **figures: Any) -> dict[str, Any]:
    where = {"card": "NVIDIA H200", "layers": 28, "run": "whole.py", "commit": commit, "date": "2026-11-29"}
    return where | BEFORE | figures


def regressions(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, TRAINING / "regressions.py", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True)


def compare(folder: Path, *rows: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    file = folder / "results.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return regressions("--results", file)


@pytest.mark.parametrize(
    ("figure", "value", "flagged"),
    [
        ("tokens_per_s", 9600.0, False),
        ("tokens_per_s", 9400.0, True),
        ("tokens_per_s", 12000.0, False),
        ("peak_gpu_gib", 35.0, False),
        ("peak_gpu_gib", 36.0, True),
        ("peak_gpu_gib", 20.0, False),
        ("loss", 4.7, False),
        ("loss", 5.0, True),
        ("loss", 4.3, True),
    ],
)
def test_a_figure_that_is_five_percent_worse_is_flagged(
    tmp_path: Path, figure: str, value: float, flagged: bool
) -> None:
    done = compare(tmp_path, row("old"), row("new", **{figure: value}))
    assert done.returncode == (3 if flagged else 0)
    marked = [line.split()[0] for line in done.stdout.splitlines() if line.endswith(("WORSE", "OTHER"))]
    assert marked == ([figure] if flagged else [])


def test_a_commit_has_the_best_of_its_runs_and_is_held_against_the_best_commit_before(tmp_path: Path) -> None:
    runs = [("first", 11000), ("second", 10000), ("new", 9000), ("new", 10900)]
    done = compare(tmp_path, *(row(commit, tokens_per_s=rate) for commit, rate in runs))
    assert done.returncode == 0
    (line,) = [line.split() for line in done.stdout.splitlines() if "tokens_per_s" in line]
    assert line == ["tokens_per_s", "10,900", "new", "11,000", "first", "-0.9%"]


def test_another_card_checkpoint_or_run_is_not_compared(tmp_path: Path) -> None:
    others = [{"card": "NVIDIA H100"}, {"layers": 8}, {"run": "whole.py --step 112"}]
    slow = [row("new", tokens_per_s=1, **other) for other in others]
    done = compare(tmp_path, row("old"), *slow)
    assert (done.returncode, "tokens_per_s" in done.stdout) == (0, False)


def test_a_run_that_compiled_kernels_is_compared_with_such_runs_alone(tmp_path: Path) -> None:
    def saved(commit: str, seconds: float, compiled: int) -> dict[str, Any]:
        return row(commit, saved_after_s=seconds, kernels_compiled=compiled)

    assert compare(tmp_path, saved("old", 60, 0), saved("new", 90, 12)).returncode == 0
    assert compare(tmp_path, saved("old", 60, 0), saved("new", 90, 12), saved("new", 70, 0)).returncode == 3


def test_what_is_meant_to_be_worse_is_said_once_and_is_the_measure_from_then_on(tmp_path: Path) -> None:
    meant = row("slower", tokens_per_s=8000, meant="sums in fp32")
    assert compare(tmp_path, row("old"), meant).returncode == 0
    assert compare(tmp_path, row("old"), meant, row("new", tokens_per_s=7000)).returncode == 3


def test_result_lines_of_a_log_become_rows_once_and_are_compared(tmp_path: Path) -> None:
    file, log = tmp_path / "results.jsonl", tmp_path / "run.log"
    file.write_text(json.dumps(row("old")) + "\n")
    of_another = 'RESULT {"card": "NVIDIA H200", "us": [1, 2]}\n'
    result = row("new", tokens_per_s=9000.0, timeline=[[0, 1.5, "start of the process"]])
    log.write_text(f"step 1/10\n{of_another}RESULT {json.dumps(result)}\n")
    done = regressions("--results", file, "--add", log)
    assert done.returncode == 3
    assert done.stdout.startswith("1 rows added")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [row("old"), row("new", tokens_per_s=9000.0)]
    again = regressions("--results", file, "--add", log)
    assert again.stdout.startswith("0 rows added")
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("step 1\n", "has no RESULT line of whole.py or cold_start.py that names its run"),
        ('RESULT {"run": "whole.py", \n', "run.log:1 is not JSON"),
        ('RESULT {"run": "whole.py", "card": "NVIDIA H200"}\n', "run.log:1 does not say layers, commit, date"),
        (f"RESULT {json.dumps(row('unknown'))}\n", "run.log:1: its commit is unknown: write it there"),
    ],
)
def test_a_log_that_says_too_little_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "run.log").write_text(text)
    done = regressions("--results", tmp_path / "results.jsonl", "--add", tmp_path / "run.log")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not (tmp_path / "results.jsonl").exists()


def test_the_figures_that_are_kept_can_be_read() -> None:
    assert regressions().returncode in (0, 3)


def test_a_run_is_named_by_its_options_that_are_no_defaults() -> None:
    script = """
import argparse
from measured import add_commit, measured
parser = argparse.ArgumentParser(prog="whole.py")
for name in ("checkpoint", "--home", "--step", "--micro-batch"):
    parser.add_argument(name, default="8")
parser.add_argument("--cold", action="store_true")
add_commit(parser)
told = measured(parser, parser.parse_args())
print(told["run"], told["commit"])
"""
    given = ["C", "--home", "H", "--micro-batch", "56", "--step", "8", "--cold", "--commit", "abc"]
    done = subprocess.run([sys.executable, "-c", script, *given], cwd=TRAINING, capture_output=True, text=True)
    assert done.stdout == "whole.py --micro-batch 56 --cold abc\n", done.stderr
