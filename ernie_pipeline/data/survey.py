"""What rows are like, before a recipe for them is written: how many are broken, how long, and what filters take."""

from dataclasses import dataclass

import polars as pl

from ernie_pipeline.data.dedup.near_duplicates import drop_near_duplicates
from ernie_pipeline.data.filter.filters import apply_filters
from ernie_pipeline.data.normalize.answers import with_answer
from ernie_pipeline.data.normalize.row_id import with_row_id
from ernie_pipeline.data.read.reading import Reading
from ernie_pipeline.data.tables.heavy_filters import SWITCHED, heavy_filters
from ernie_pipeline.recipe.sections import Filters, NearDuplicates, Source

MOST_ROWS = 20_000
"""Rows that are looked at: seconds."""
TOLERATED = 10**9
COVERED, FEW = 0.995, 1000
"""Share of the rows that bounds of length are to let pass, and below how many rows all of them."""


@dataclass(frozen=True)
class Survey:
    """`rows`: the first unbroken ones, of the schema `ROWS`; `bad`: how many broken ones are among them, and the first.

    `whole`: these are all rows. `bounds`: those of `length_bounds`. `off`: the filters of which each, by its switch,
    would take more than a third of the rows, and so many. `alike`: near duplicates, if they are more than a third, else
    0. `kept`: rows that pass with all of this said in the recipe.
    """

    rows: pl.DataFrame
    bad: int
    first_bad: str
    whole: bool
    bounds: dict[str, int]
    off: dict[str, int]
    alike: int
    kept: int


def survey(source: Source, version: str) -> Survey:
    """A look at the first `MOST_ROWS` rows. Raises `PipelineError` as `Reading.chunks`, broken rows tolerated."""
    frames, bad, first, whole = list[pl.DataFrame](), 0, "", True
    chunks = Reading(source.model_copy(update={"max_bad_rows": TOLERATED}), version).chunks()
    for chunk in chunks:
        frames.append(chunk.rows)
        if chunk.bad and not first:
            first = f"{chunk.bad[0].line}: {chunk.bad[0].field} {chunk.bad[0].problem}"
        bad += len(chunk.bad)
        if sum(frame.height for frame in frames) >= MOST_ROWS:
            whole = False
            break
    rows = pl.concat(frames)
    judged = with_answer(with_row_id(rows).drop("messages"))
    bounds = length_bounds(judged, Filters())
    off, kept = _fitting(judged, Filters(**bounds))
    kept, alike = drop_near_duplicates(kept, NearDuplicates())
    heavy = alike.height if heavy_filters({"": alike.height}, rows.height) else 0
    return Survey(rows, bad, first, whole, bounds, off, heavy, kept.height + heavy)


def _fitting(rows: pl.DataFrame, filters: Filters) -> tuple[dict[str, int], pl.DataFrame]:
    """(the filters to switch off, since each would take more than a third of the rows, and how many; what is kept)."""
    off: dict[str, int] = {}
    while True:
        kept, dropped = apply_filters(rows, filters.model_copy(update=dict.fromkeys(off, False)))
        counts = dict(dropped["filter"].value_counts().iter_rows())
        heavy = [name for name in heavy_filters(counts, rows.height) if name in SWITCHED]
        if not heavy:
            return off, kept
        off |= {name: counts[name] for name in heavy}


def length_bounds(rows: pl.DataFrame, filters: Filters) -> dict[str, int]:
    """The bounds that nearly all of `rows` (with `answer`) keep to, of few rows all, where `filters` are narrower."""
    question, answer = (rows[name].drop_nulls().str.strip_chars().str.len_chars() for name in ("question", "answer"))
    share = COVERED if rows.height >= FEW else 1.0
    found: dict[str, int] = {}
    if question.len() and (shortest := _quantile(question, 1 - share)) < filters.min_question_chars:
        found["min_question_chars"] = max(1, shortest)
    if question.len() and (longest := _quantile(question, share)) > filters.max_question_chars:
        found["max_question_chars"] = round_up(longest)
    if answer.len() and (longest := _quantile(answer, share)) > filters.max_answer_chars:
        found["max_answer_chars"] = round_up(longest)
    return found


def round_up(number: int) -> int:
    """To the next multiple of a power of two that is at most an eighth of it: 1,030 to 1,152."""
    step = 1 << max(0, number.bit_length() - 4)
    return -(-number // step) * step


def _quantile(lengths: pl.Series, share: float) -> int:
    value = lengths.quantile(share, interpolation="nearest")
    return int(value) if value is not None else 0
