"""`grade`: whether each answer of a file is right, and why.

Exit status: 0 when every row was graded, whatever came of it; 1 when the file cannot be read, has no rows, or a row
lacks a field.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ernie_pipeline.cli.output import FRESH, AsJson
from ernie_pipeline.evaluation.metrics import accuracy_interval
from ernie_pipeline.grading.grade import Grade
from ernie_pipeline.grading.grade import grade as grade_answers
from ernie_pipeline.orchestration.words import rows as count_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import between, percent

FIELDS = ("reference", "answer")
FORM = '{"reference": "4", "answer": "It is \\\\boxed{4}."}'
_KINDS = {bool: "true or false", list: "a list", dict: "an object"}


def grade(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="rows with the fields reference and answer")],
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="for one answer")] = 5.0,
    as_json: AsJson = False,
) -> int:
    """Grade the rows of a file, JSON Lines with the fields `reference` and `answer`, and print the outcomes."""
    lines, rows = _read(file)
    try:
        grades = grade_answers([row[1] for row in rows], [row[0] for row in rows], timeout_s=timeout)
    except ValueError as error:
        raise PipelineError(f"--timeout must be a finite number of seconds above 0, and is {timeout:g}") from error
    if as_json:
        for line, one in zip(lines, grades, strict=True):
            print(json.dumps(_as_json(line, one)))
    else:
        for line, one in zip(lines, grades, strict=True):
            print(f"{line}: {one.outcome}: {one.reason}")
        print(summary(grades))
    return FRESH


def summary(grades: Sequence[Grade]) -> str:
    """The counts and the share that is right, in a line."""
    counts = Counter(one.outcome for one in grades)
    low, high = accuracy_interval(counts["correct"], len(grades))
    share, told = counts["correct"] / len(grades), f"{counts['wrong']} wrong, {counts['timeout']} timed out"
    return (
        f"{count_of(len(grades))}: {counts['correct']} correct, {told}; "
        f"{percent(share)} correct (95 % interval {between(low, high)})"
    )


def _as_json(line: int, one: Grade) -> dict[str, object]:
    return {
        "row": line,
        "outcome": one.outcome,
        "reason": one.reason,
        "boxed": one.boxed,
        "extracted": one.extracted,
    }


def _read(path: Path) -> tuple[list[int], list[tuple[str, str]]]:
    """(line numbers, (reference, answer)); blank lines are no rows. Raises `PipelineError`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        said = f"{path} cannot be read ({error.strerror or error}); name a file of JSON Lines"
        raise PipelineError(said) from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    lines, rows = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            lines.append(number)
            rows.append(_row(path, number, line))
    if not rows:
        raise PipelineError(f"{path} has no rows to grade; write one a line: {FORM}")
    return lines, rows


def _row(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path}, row {number}: this is not JSON ({error}); write one object a line") from error
    if not isinstance(row, dict):
        raise PipelineError(f"{path}, row {number}: this is no JSON object; write {FORM}")
    for field in FIELDS:
        if field not in row:
            raise PipelineError(f"{path}, row {number}: the field {field!r} is missing; add it")
        if not isinstance(row[field], str):
            kind = "null" if row[field] is None else _KINDS.get(type(row[field]), "a number")
            raise PipelineError(f"{path}, row {number}: the field {field!r} is {kind}; make it text")
    if not row["reference"].strip():
        raise PipelineError(f"{path}, row {number}: the field 'reference' is empty, so no answer can be right; drop it")
    return row["reference"], row["answer"]
