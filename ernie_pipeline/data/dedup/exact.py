"""Rows that ask what another row asks. Which of them stays depends on their contents, not on their order."""

import polars as pl

from ernie_pipeline.data.filter.reasons import KEEPS, quoted
from ernie_pipeline.data.normalize.equal_answers import equal_form
from ernie_pipeline.data.normalize.text import alike
from ernie_pipeline.recipe.sections import Filters

ROW_ID, LINE = 16, 19
"""Digits of a row's id, and of the greatest line number there can be (an `Int64`)."""


def conflicting_answers(filters: Filters) -> pl.Expr:
    r"""Rows that answer one question differently: at least one is wrong, and nothing says which. All of them go.

    drops: What is 3 + 4? => 8 || What is 3 + 4? => 7
    drops: What is $x$? => 8 || what is \(x\)? => 7 || What is x? => 8
    drops: How long is it? => 5t || How long is it? => 5
    keeps: What is one half? => \frac{1}{2} || What is one half? => \(\dfrac 12\) || What is one half? => 0.5
    keeps: Solve x+2=7. => x=5 || Solve x+2=7. => 5 || What is 65 times 25? => 1,625 || What is 65 times 25? => 1625
    keeps: What is X + x? => 1 || What is x + x? => 2
    """
    if not filters.conflicting_answers:
        return KEEPS
    rank = pl.col("rank")
    of_answer = rank.min().over("same", equal_form(pl.col("answer")))
    first = rank.min().over("same")
    second = pl.when(of_answer != first).then(rank).min().over("same")
    # against the first answer, or where that is this row's own, against another one
    other = pl.when(second.is_null()).then(None).when(of_answer == first).then(second).otherwise(first)
    return pl.format(
        "line {} answers {} where this row answers {}",
        _line(other),
        quoted(other.str.slice(ROW_ID + LINE)),
        quoted(pl.col("answer")),
    )


def exact_duplicate(filters: Filters) -> pl.Expr:
    r"""A question that comes twice weighs double, and would be trained on and evaluated at once.

    The row of the smallest id stays.

    drops: What is 3 + 4? || What is 3 + 4? || What is 3 + 5? => 8
    drops: Let $x=3$.  What is \(x + 4\)? || let \[x = 3\] what is $x+4$
    keeps: What is x-1? || What is x+1?
    keeps: What is f(x) for x = 3.5? || What is f(x) for x = 35?
    """
    rank = pl.col("rank")
    first = rank.min().over("same")
    return pl.format("the same question as line {}", _line(pl.when(rank != first).then(first)))


def alike_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that ask what another row asks, with two columns for the filters here.

    `same`: the group's key. `rank`: sorts by the row's id, then its line; the answer follows.
    """
    found = alike(rows["question"])
    rank = pl.concat_str("row_id", pl.col("line").cast(pl.String).str.zfill(LINE), "answer")
    return rows[found["position"]].with_columns(found["same"], rank=rank)


def _line(rank: pl.Expr) -> pl.Expr:
    return rank.str.slice(ROW_ID, LINE).cast(pl.Int64)
