r"""The filters: each a small named unit that keeps a row, or drops it with a reason.

A filter takes the recipe's section and gives an expression over the columns `line`, `row_id`, `question`,
`expected_answer` and `answer` (bare): the reason for each dropped row, null for each kept one. Those that compare rows
get the rows of `duplicates.alike_rows` and its columns too. To add one, write the function and put it in `ROW_FILTERS`
or `GROUP_FILTERS`; its name is the function's.

Its docstring holds its examples, and a test runs them all: lines that begin with "drops:" or "keeps:", then
QUESTION => ANSWER. An answer that is left out is 7; "¶" stands for the end of a line; after " || " come further rows
that stand beside the first, which is the one that is dropped or kept.
"""

from collections.abc import Callable

import polars as pl

from ernie_pipeline.data.dedup.exact import alike_rows, conflicting_answers, exact_duplicate
from ernie_pipeline.data.filter.fields import (
    answer_length,
    missing_answer,
    missing_question,
    placeholder,
    question_length,
    unbalanced_answer,
)
from ernie_pipeline.data.filter.language import non_english
from ernie_pipeline.data.filter.questions import multi_part, multiple_choice, proof, reference, yes_no
from ernie_pipeline.data.tables.slices import slices_of
from ernie_pipeline.recipe.sections import Filters

Filter = Callable[[Filters], pl.Expr]

DROPPED = ("line", "question", "expected_answer", "filter", "reason")

ROW_FILTERS: tuple[Filter, ...] = (
    missing_question,
    missing_answer,
    placeholder,
    unbalanced_answer,
    question_length,
    answer_length,
    yes_no,
    multiple_choice,
    proof,
    multi_part,
    reference,
    non_english,
)
"""These look at one row alone."""

GROUP_FILTERS: tuple[Filter, ...] = (
    conflicting_answers,
    exact_duplicate,
)
"""These compare the rows that all of `ROW_FILTERS` keep, so that no row that goes takes another one with it."""

FILTERS = (*ROW_FILTERS, *GROUP_FILTERS)
"""In this order: a row is dropped by the first that fires."""


def apply_filters(rows: pl.DataFrame | pl.LazyFrame, filters: Filters) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): the rows that pass every filter, and for the others the `filter` and the `reason`.

    `rows` needs the columns `row_id`, and `answer` of `answers.with_answer`. Kept rows stay in their order, and whether
    a row is kept does not depend on it.
    """
    kept, unfit = _judged(rows.lazy().collect(), ROW_FILTERS, filters)
    _, again = _judged(alike_rows(kept), GROUP_FILTERS, filters)
    return kept.join(again, on="line", how="anti", maintain_order="left"), pl.concat([unfit, again])


def drop_rows(rows: pl.LazyFrame, name: str, reason: pl.Expr) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """`rows` parted by `reason`: (those where it is null, the others as rows of the ledger of drops)."""
    judged = rows.with_columns(filter=pl.lit(name), reason=reason)
    dropped = judged.filter(pl.col("reason").is_not_null()).select(DROPPED)
    return judged.filter(pl.col("reason").is_null()).drop("filter", "reason"), dropped


def _judged(rows: pl.DataFrame, rules: tuple[Filter, ...], filters: Filters) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped), with the first of `rules` that fires: all are asked at once, on all cores."""
    reasons = [rule(filters).alias(rule.__name__) for rule in rules]
    names = [pl.when(pl.col(rule.__name__).is_not_null()).then(pl.lit(rule.__name__)) for rule in rules]
    first = {"filter": pl.coalesce(names), "reason": pl.coalesce(rule.__name__ for rule in rules)}
    verdicts = pl.concat([some.lazy().select(reasons).select(**first).collect() for some in slices_of(rows)])
    is_kept = verdicts["reason"].is_null()
    return rows.filter(is_kept), rows.filter(~is_kept).hstack(verdicts.filter(~is_kept)).select(DROPPED)
