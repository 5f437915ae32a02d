"""The problems that are practised, and those set aside to measure it: of the training rows, never the held-out ones."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, token_ids
from ernie_pipeline.utils.errors import PipelineError


class Problem(NamedTuple):
    """A prompt as token ids, and the reference answer."""

    row_id: str
    ids: list[int]
    reference: str


class Problems(NamedTuple):
    """What a run practises, and what measures it."""

    practised: list[Problem]
    held: list[Problem]


def read_problems(split: Path, tokenizer: Tokenizer, solutions: Path | None = None) -> list[Problem]:
    """The training rows of a split's folder, in their order.

    With the folder of `solutions`, only those that were solved in some of the attempts: from those always or never
    solved there is little to learn.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(split / "train.parquet", columns=["row_id", "prompt_text", "answer"])
    columns = (table[name].to_pylist() for name in ("row_id", "answer"))
    prompts = token_ids(tokenizer, table["prompt_text"].to_pylist()) if len(table) else []
    found = [Problem(row, ids, answer) for (row, answer), ids in zip(zip(*columns, strict=True), prompts, strict=True)]
    if solutions is None:
        return found
    graded = pq.read_table(solutions / "problems.parquet", columns=["row_id", "class"]).to_pylist()
    sometimes = {row["row_id"] for row in graded if row["class"] == "sometimes"}
    return [problem for problem in found if problem.row_id in sometimes]


def set_aside(problems: Sequence[Problem], number: int, needed: int) -> Problems:
    """`number` of them, by the hash of their ids, to measure the run; the rest to practise, in their order.

    Raises `PipelineError` unless as many as a step `needed` are left.
    """
    if len(problems) < number + needed:
        raise PipelineError(
            f"there are {len(problems)} problems to practise, and GRPO needs {number + needed}: {needed} for a step "
            f"(training.samples_per_step / grpo.group) and {number} to measure it (grpo.eval_problems); lower these, "
            "or give it more rows"
        )
    by_hash = sorted(problems, key=lambda problem: hashlib.sha256(problem.row_id.encode()).hexdigest())
    held = {problem.row_id for problem in by_hash[:number]}
    return Problems(
        [problem for problem in problems if problem.row_id not in held],
        [problem for problem in problems if problem.row_id in held],
    )
