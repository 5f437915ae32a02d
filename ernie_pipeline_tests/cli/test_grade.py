"""`python -m ernie_pipeline grade`: what it prints, for people and for programs, and what it says of bad files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main

ROWS = [
    {"reference": r"\frac{1}{2}", "answer": r"It is \boxed{0.5}.", "more": 1},
    {"reference": "1, 2", "answer": r"\boxed{1}"},
    {"reference": "3", "answer": r"\boxed{3} or \boxed{4}"},
    {"reference": "3", "answer": ""},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    return path


def test_a_line_for_each_row_and_a_summary(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1: correct: the same",
        "2: wrong: 2 values are asked",
        "3: wrong: several boxes disagree",
        "4: wrong: no answer was found",
        "4 rows: 1 correct, 3 wrong, 0 timed out; 25.0 % correct (95 % interval 4.6 to 69.9 %)",
    ]


def test_an_object_for_each_row(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(file), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["row"] for row in found] == [1, 2, 3, 4]
    assert found[0] == {"row": 1, "outcome": "correct", "reason": "the same", "boxed": True, "extracted": "0.5"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"reference": "1"}', "row 1: the field 'answer' is missing"),
        (b'{"reference": "1", "answer": "1"}\n{"answer": "1"}', "row 2: the field 'reference' is missing"),
        (b'{"reference": 1, "answer": "1"}', "row 1: the field 'reference' is a number; make it text"),
        (b'{"reference": "1", "answer": null}', "row 1: the field 'answer' is null"),
        (b'{"reference": " ", "answer": "1"}', "row 1: the field 'reference' is empty"),
        (b"[1]", "row 1: this is no JSON object"),
        (b"{", "row 1: this is not JSON"),
        (b"\xff\xfe{", "is not UTF-8"),
        (b"\n\n", "has no rows to grade; write one a line: {"),
    ],
)
def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert main(["grade", str(path)]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert str(path) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["missing.jsonl"], ["rows.jsonl", "--timeout", "0"]])
def test_other_errors(file: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(file.parent / arguments[0]), *arguments[1:]]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_what_cannot_be_shown_is_shown_escaped_and_an_end_that_never_comes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"reference": "\\ud800", "answer": "\\ud800"}\n{"reference": "5", "answer": "\\u202e5"}\n')
    command = [sys.executable, "-m", "ernie_pipeline", "grade", str(file)]
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(done.stdout.splitlines()) >= 2
    for endless in ("nan", "inf"):
        done = subprocess.run([*command, "--timeout", endless], capture_output=True)
        assert done.returncode == 1
        assert b"--timeout must be a finite number of seconds above 0" in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"reference": "5", "answer": "5"}\n' * 30_000)
    program = f"{sys.executable} -m ernie_pipeline grade {file} | head -n 1"
    done = subprocess.run(program, shell=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"1: correct: the same\n", b"")
