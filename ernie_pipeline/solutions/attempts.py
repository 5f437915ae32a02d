"""Every attempt with its grade, of all rounds, and the tables that are written of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.grading.attempts import by_problem, grade_values
from ernie_pipeline.grading.grade import Grade, is_strict
from ernie_pipeline.solutions.choose import choose
from ernie_pipeline.solutions.problems import Problem

FILE = "attempts.parquet"


@dataclass(frozen=True)
class Attempt:
    """One answer to a problem. `tokens`: how many it has, its end token included; `ended`: by that, not by the limit.

    `boxed`, `extracted`, `outcome` and `reason` are its grade's; `strict`: right, boxed and ended; `kept`: chosen.
    """

    row_id: str
    question: str
    reference: str
    kind: str
    round: int
    sample: int
    text: str
    tokens: int
    ended: bool
    boxed: bool
    extracted: str | None
    outcome: str
    reason: str
    strict: bool
    kept: bool = False


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("row_id", "question", "reference", "kind")),
        *((name, pa.int64()) for name in ("round", "sample")),
        ("text", pa.string()),
        ("tokens", pa.int64()),
        *((name, pa.bool_()) for name in ("ended", "boxed")),
        *((name, pa.string()) for name in ("extracted", "outcome", "reason")),
        *((name, pa.bool_()) for name in ("strict", "kept")),
    ]
)

KEPT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("row_id", "question", "prompt_text", "completion_text")),
        *((name, pa.int64()) for name in ("round", "sample", "tokens")),
    ]
)
"""Of train.parquet and validation.parquet: the texts are what training reads."""


def attempt(
    problem: Problem, round_: int, sample: int, text: str, tokens: Sequence[int], ended: bool, grade: Grade
) -> Attempt:
    """The attempt with its grade."""
    return Attempt(
        row_id=problem.row_id,
        question=problem.question,
        reference=problem.answer,
        kind=problem.kind,
        round=round_,
        sample=sample,
        text=text,
        tokens=len(tokens),
        ended=ended,
        strict=is_strict(grade, ended),
        **grade_values(grade),
    )


def earlier_attempts(folder: Path | None, problems: Iterable[Problem]) -> list[Attempt]:
    """The attempts at these problems that the artifact of the round before holds, none of them chosen yet."""
    if folder is None:
        return []
    wanted = {problem.row_id for problem in problems}
    rows = pq.read_table(folder / FILE).to_pylist()
    return [replace(Attempt(**row), kept=False) for row in rows if row["row_id"] in wanted]


def chosen(attempts: Sequence[Attempt], keep: int) -> list[Attempt]:
    """The same attempts, those of each problem that `choose` takes marked as `kept`."""
    marked: list[Attempt] = []
    for own in by_problem(attempts).values():
        right = [i for i, each in enumerate(own) if each.strict]
        picked = choose([own[i].text for i in right], [own[i].tokens for i in right], keep)
        kept = {right[i] for i in picked}
        marked += [replace(each, kept=i in kept) for i, each in enumerate(own)]
    return marked


def write_attempts(attempts: Sequence[Attempt], out: Path) -> None:
    """Write attempts.parquet, a row for each attempt."""
    pq.write_table(pa.Table.from_pylist([asdict(each) for each in attempts], schema=SCHEMA), out / FILE)


def write_kept(attempts: Iterable[Attempt], prompts: Mapping[str, str], end: str, file: Path) -> int:
    """Write the kept ones as rows to train on; how many. `prompts`: by `row_id`; `end`: the text of the end token."""
    rows: list[dict[str, Any]] = [
        {
            "row_id": each.row_id,
            "question": each.question,
            "prompt_text": prompts[each.row_id],
            "completion_text": each.text + end,
            "round": each.round,
            "sample": each.sample,
            "tokens": each.tokens,
        }
        for each in attempts
        if each.kept
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=KEPT_SCHEMA), file)
    return len(rows)
