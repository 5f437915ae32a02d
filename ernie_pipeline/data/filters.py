"""The filters: each a small named unit that keeps a row, or drops it with a reason.

A filter takes the recipe's bounds and gives an expression over the columns `line`, `question`, `expected_answer` and
`answer` (bare): the reason for each dropped row, null for each kept one. It sees only the rows that the filters before
it kept. To add one, write the function and put it in `FILTERS`; its name is the function's.
"""

from collections.abc import Callable

import polars as pl

from ernie_pipeline.data.answers import balanced
from ernie_pipeline.recipe import Filters

Filter = Callable[[Filters], pl.Expr]

DROPPED = ("line", "question", "expected_answer", "filter", "reason")


def missing_question(filters: Filters) -> pl.Expr:
    """Without a question there is nothing to answer."""
    return pl.when(_blank("question")).then(pl.lit("the question is empty"))


def missing_answer(filters: Filters) -> pl.Expr:
    """Without an answer there is nothing to learn and nothing to grade."""
    return pl.when(_blank("answer")).then(pl.lit("the answer is empty"))


def unbalanced_answer(filters: Filters) -> pl.Expr:
    r"""A brace without its partner breaks the `\boxed{}` around the answer, so no grader could read it back."""
    is_balanced = pl.col("answer").map_elements(balanced, return_dtype=pl.Boolean)
    return pl.when(~is_balanced).then(pl.lit("the answer has a brace without its partner"))


def question_length(filters: Filters) -> pl.Expr:
    """Stubs are no problems, and very long texts are mostly several problems or a page's boilerplate."""
    return _outside("question", filters.min_question_chars, filters.max_question_chars)


def answer_length(filters: Filters) -> pl.Expr:
    """A long final answer is prose or a proof: no comparison of expressions can grade it."""
    return _outside("answer", 0, filters.max_answer_chars)


def exact_duplicate(filters: Filters) -> pl.Expr:
    """A problem that comes twice weighs double, and would be trained on and evaluated at once; the first line stays."""
    first = pl.col("line").min().over(normalised(pl.col("question")))
    return pl.when(pl.col("line") > first).then(pl.format("the same question as line {}", first))


FILTERS: tuple[Filter, ...] = (
    missing_question,
    missing_answer,
    unbalanced_answer,
    question_length,
    answer_length,
    exact_duplicate,
)
"""In this order: a row is dropped by the first that fires."""


def apply_filters(rows: pl.DataFrame | pl.LazyFrame, filters: Filters) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): the rows that pass every filter, and for the others the `filter` and the `reason`.

    `rows` needs the column `answer` of `answers.with_answer`. Kept rows stay in their order.
    """
    kept, dropped = rows.lazy(), []
    for rule in FILTERS:
        kept, out = drop_rows(kept, rule.__name__, rule(filters))
        dropped.append(out)
    kept_frame, dropped_frame = pl.collect_all([kept, pl.concat(dropped)])
    return kept_frame, dropped_frame


def drop_rows(rows: pl.LazyFrame, name: str, reason: pl.Expr) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """`rows` parted by `reason`: (those where it is null, the others as rows of the ledger of drops)."""
    judged = rows.with_columns(filter=pl.lit(name), reason=reason)
    dropped = judged.filter(pl.col("reason").is_not_null()).select(DROPPED)
    return judged.filter(pl.col("reason").is_null()).drop("filter", "reason"), dropped


def normalised(text: pl.Expr) -> pl.Expr:
    """The text without what makes no other question of it: Unicode form (NFKC), case, runs of white space."""
    return text.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def _blank(column: str) -> pl.Expr:
    return pl.col(column).is_null() | (pl.col(column).str.strip_chars() == "")


def _outside(column: str, lowest: int, highest: int) -> pl.Expr:
    length = pl.col(column).str.len_chars()
    return (
        pl.when(length < lowest)
        .then(pl.format(f"the {column} has {{}} characters, fewer than {lowest}", length))
        .when(length > highest)
        .then(pl.format(f"the {column} has {{}} characters, more than {highest}", length))
    )
