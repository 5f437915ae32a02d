"""All filters, in the order in which a row meets them."""

from collections.abc import Callable

import polars as pl

from ernie_pipeline.data.dedup.exact import alike_rows, conflicting_answers, exact_duplicate
from ernie_pipeline.data.filter.choices import multiple_choice
from ernie_pipeline.data.filter.fields import (
    answer_length,
    missing_answer,
    missing_question,
    placeholder,
    question_length,
    unbalanced_answer,
)
from ernie_pipeline.data.filter.language import non_english
from ernie_pipeline.data.filter.lost_latex import lost_latex
from ernie_pipeline.data.filter.questions import multi_part, proof, yes_no
from ernie_pipeline.data.filter.reasons import DROPPED
from ernie_pipeline.data.filter.references import reference
from ernie_pipeline.data.tables.slices import slices_of
from ernie_pipeline.recipe.sections import Filters

Filter = Callable[[Filters], pl.Expr]

ROW_FILTERS: tuple[Filter, ...] = (
    missing_question,
    missing_answer,
    placeholder,
    lost_latex,
    unbalanced_answer,
    question_length,
    answer_length,
    yes_no,
    multi_part,
    multiple_choice,
    proof,
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


def _judged(rows: pl.DataFrame, rules: tuple[Filter, ...], filters: Filters) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped), with the first of `rules` that fires: all are asked at once, on all cores."""
    reasons = [rule(filters).alias(rule.__name__) for rule in rules]
    names = [pl.when(pl.col(rule.__name__).is_not_null()).then(pl.lit(rule.__name__)) for rule in rules]
    first = {"filter": pl.coalesce(names), "reason": pl.coalesce(rule.__name__ for rule in rules)}
    verdicts = pl.concat([some.select(reasons).select(**first) for some in slices_of(rows)])
    is_kept = verdicts["reason"].is_null()
    return rows.filter(is_kept), rows.filter(~is_kept).hstack(verdicts.filter(~is_kept)).select(DROPPED)
