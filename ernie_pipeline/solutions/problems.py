"""The training problems, and what follows from a problem alone wherever it stands: its seeds, its place, its part."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.stable_hash import stable_number

COLUMNS = ("row_id", "question", "answer", "kind", "prompt_text")


class Problem(NamedTuple):
    """A training row: `answer` is the reference answer, bare; `prompt_text` the chat template's, up to where the model
    is to write."""

    row_id: str
    question: str
    answer: str
    kind: str
    prompt_text: str


def read_problems(file: Path, rows: int, seed: int) -> list[Problem]:
    """The problems of a split's train.parquet in its order: all, or with `rows` that many of them.

    Which ones does not change when others are appended or removed, but that one of them may take another one's place.
    Raises `PipelineError` when there are fewer than two.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=[*COLUMNS])
    problems = [Problem(**row) for row in table.to_pylist()]
    if not problems:
        raise PipelineError("the split has no training problems to solve; give it more rows, or lower eval_fraction")
    if 1 in (len(problems), rows):
        raise PipelineError(
            f"one training problem alone is to be solved (solutions.rows = {rows}, and the split has {len(problems)}): "
            "solutions need two at least, one to learn from and one to measure by; raise solutions.rows, or give it "
            "more rows"
        )
    if not rows or rows >= len(problems):
        return problems
    first = sorted(range(len(problems)), key=lambda i: (stable_number("order", seed, problems[i].prompt_text), i))[
        :rows
    ]
    return [problems[i] for i in sorted(first)]


def attempt_seed(prompt_text: str, seed: int, round_: int, sample: int) -> int:
    """The seed of one attempt, 62 bits: of the prompt's own text, the recipe's seed, the round and the sample's number.

    So another row, more samples or another order of the rows leave it as it is.
    """
    return stable_number("attempt", seed, round_, sample, prompt_text) >> 2


def for_validation(questions: Collection[str], fraction: float, seed: int) -> set[str]:
    """Those of the questions whose solutions only measure the training: about the `fraction` of them.

    Each by a hash of its own, so none moves when others come or go; but at least one is on either side, of two or more.
    """
    places = sorted((stable_number("validation", seed, question), question) for question in {*questions})
    below = sum(place < fraction * 2**64 for place, _ in places)
    return {question for _, question in places[: max(1, min(below, len(places) - 1))]}


def seeds_of(problems: Sequence[Problem], samples: int, seed: int, round_: int) -> list[int]:
    """The seeds of `samples` attempts at each problem, those of one problem next to each other."""
    return [attempt_seed(p.prompt_text, seed, round_, sample) for p in problems for sample in range(samples)]
