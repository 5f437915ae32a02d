"""The division into training and evaluation rows: seeded, and the same whatever order the rows come in."""

import hashlib
from collections.abc import Mapping

import polars as pl

from ernie_pipeline.data.filters import normalised
from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Split

ROW_ID_DIGITS = 16


def split_rows(
    rows: pl.DataFrame, split: Split, counts: Mapping[str, int] | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(train, eval): the first `split.rows` rows (0: all) in the order of a keyed hash of the question.

    The first `eval_fraction` of those, at least one row, is the evaluation's; at least one is left to train on. Both
    are in hash order and begin with `row_id`, which stays the same for the same question and answer.
    Raises `PipelineError` when there are too few rows; it then shows `counts`, the rows that each filter dropped.
    """
    _require_enough(rows.height, split.rows, counts or {})
    ordered = _with_row_id(_in_hash_order(rows, split.seed))
    used = split.rows or rows.height
    held_out = min(max(1, round(used * split.eval_fraction)), used - 1)
    return ordered[held_out:used], ordered[:held_out]


def _require_enough(available: int, wanted: int, counts: Mapping[str, int]) -> None:
    if wanted == 1:
        raise PipelineError("split.rows = 1 leaves nothing to train on; set it to 2 or more, or to 0 for all rows")
    needed = max(wanted, 2)
    if available >= needed:
        return
    dropped = ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
    raise PipelineError(
        f"{available} rows are left where the split needs {needed} (dropped by the filters: {dropped}); "
        "lower split.rows, widen the bounds in [filters] and split.max_tokens, or use a larger source"
    )


def _in_hash_order(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A permutation that depends on seed, questions and lines alone; a row's place does not depend on other rows."""
    key = str(seed).encode()
    questions = rows.select(normalised(pl.col("question"))).to_series()
    hashes = [hashlib.blake2b(question.encode(), key=key, digest_size=16).digest() for question in questions]
    return rows.with_columns(pl.Series("hash", hashes, pl.Binary)).sort("hash", "line").drop("hash")


def _with_row_id(rows: pl.DataFrame) -> pl.DataFrame:
    pairs = zip(rows["question"], rows["expected_answer"], strict=True)
    ids = [hashlib.sha256(f"{question}\0{answer}".encode()).hexdigest()[:ROW_ID_DIGITS] for question, answer in pairs]
    return rows.select(pl.Series("row_id", ids, pl.String), pl.all())
