"""Near duplicates: questions whose sets of word shingles are alike, found by MinHash and then compared exactly.

rensa signs each question's shingles and says which questions share a band of their signatures with another one; those
are compared exactly (alike.py). A pair of similarity s shares one of b bands of r values with the probability
1 - (1 - s^r)^b (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.2), and only what shares none is
missed. Groups are connected components: where a is alike with b and b with c, all three are one group, however unlike
a and c are.
"""

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ernie_pipeline.data.dedup.similarity import Sets, alike_pairs, components
from ernie_pipeline.data.filter.reasons import drop_rows
from ernie_pipeline.data.normalize.words import Words, ngrams, split_words
from ernie_pipeline.recipe.sections import NearDuplicates
from ernie_pipeline.utils.errors import PipelineError

MOST_MISSED = 0.001
"""The largest probability with which a pair exactly at the threshold may share no band."""
SEED = 3407
"""Of the signatures: any would do. It is no recipe key, since it changes nothing but which rare pair is missed."""
BANDS_AT_ONCE = 7
"""Of the signatures, which take 4 bytes a value: one band has nothing to do with the others."""

GROUPS = pl.Schema(
    {"row_id": pl.String, "group": pl.String, "first": pl.String, "similar_to": pl.String, "similarity": pl.Float64}
)


def near_duplicate_groups(rows: pl.DataFrame, settings: NearDuplicates, words: Words | None = None) -> pl.DataFrame:
    """`GROUPS`: the rows (`row_id`, unique; `question`) that are in a group of two or more, sorted by `row_id`.

    `group`: the smallest `row_id` of all that a split must keep together. `first`: the smallest of those that similar
    pairs link with the row, mostly the same one (`alike.AlikePairs` says when not). `similar_to`, `similarity`: the
    first one where it is similar enough itself, else the most similar row known; null for the first and for rows that
    nothing is similar to. Neither the rows' order nor the number of threads matters. `words`: those of the questions,
    where they were split already.
    Raises `PipelineError` when `settings.permutations` are too few to find pairs at `settings.threshold`.
    """
    words = split_words(rows["question"]) if words is None else words
    suspects = np.flatnonzero(_sharing_a_band(words, settings))
    suspects = suspects[rows["row_id"].gather(suspects).arg_sort().to_numpy()]
    ids = rows["row_id"].gather(suspects)
    sets = Sets(*ngrams(words.take(suspects), settings.shingle_words))
    pairs = alike_pairs(sets, settings.threshold)
    first = components(len(ids), [(pairs.left, pairs.right)])
    group = components(len(ids), [(pairs.left, pairs.right), (pairs.assumed_left, pairs.assumed_right)])
    partner, similarity = _partners(pairs.left, pairs.right, pairs.similarity, len(ids))
    members = np.flatnonzero(np.bincount(group, minlength=len(ids))[group] > 1)
    others = members[first[members] != members]
    with_first = sets.similarity(first[others], others)
    direct = with_first >= settings.threshold - 1e-9
    partner[others[direct]], similarity[others[direct]] = first[others[direct]], with_first[direct]
    is_other = pl.Series(first[members] != members)
    return pl.DataFrame(
        {"row_id": ids.gather(members), "group": ids.gather(group[members]), "first": ids.gather(first[members])}
        | {"similar_to": ids.gather(np.maximum(partner[members], 0)), "similarity": similarity[members]},
        schema=GROUPS,
    ).with_columns(pl.when(is_other).then(pl.col("similar_to", "similarity")))


def drop_near_duplicates(
    rows: pl.DataFrame, settings: NearDuplicates, words: Words | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped). `kept` has the column `group`: a row's own `row_id` where nothing is alike with it.

    With `settings.keep` "one", the smallest `row_id` of those that similar pairs link stays, and the others are the
    ledger's rows of the filter `near_duplicate`; with "all", or not `settings.enabled`, none is dropped. `rows`:
    `row_id`, `line`, `question`, `expected_answer`, in any order, which `kept` keeps. Errors as
    `near_duplicate_groups`.
    """
    groups = near_duplicate_groups(rows, settings, words) if settings.enabled else pl.DataFrame(schema=GROUPS)
    line_of = rows.select("row_id", "line")
    verdicts = (
        groups.join(line_of.rename({"row_id": "similar_to", "line": "like"}), on="similar_to", how="left")
        .join(line_of.rename({"row_id": "first", "line": "stays"}), on="first", how="left")
        .select("row_id", "group", reason=_reason() if settings.keep == "one" else pl.lit(None, pl.String))
    )
    of_rows = rows.select("row_id").join(verdicts, on="row_id", how="left", maintain_order="left")
    grouped = rows.with_columns(of_rows["group"].fill_null(rows["row_id"]))
    kept, dropped = pl.collect_all(drop_rows(grouped.lazy(), "near_duplicate", pl.lit(of_rows["reason"])))
    return kept, dropped


def banding(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows of each) of a signature: the longest bands with which a pair at `threshold` is found nearly surely.

    Raises `PipelineError` when even bands of one row miss such a pair more often than `MOST_MISSED`.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if (1 - threshold**rows) ** bands <= MOST_MISSED:
            return bands, rows
    needed = math.ceil(math.log(MOST_MISSED) / math.log1p(-threshold))
    raise PipelineError(
        f"near_duplicates.permutations = {permutations} would miss too many pairs that are {threshold:.0%} alike; "
        f"set it to {needed} or more, or raise near_duplicates.threshold"
    )


def _sharing_a_band(words: Words, settings: NearDuplicates) -> NDArray[np.bool_]:
    """For each row whether its signature has a band in common with another row's."""
    from rensa import RMinHash, RMinHashLSH

    bands, rows = banding(settings.threshold, settings.permutations)
    if not len(words):
        return np.zeros(0, np.bool_)
    hashes, offsets = ngrams(words, settings.shingle_words)
    flags = np.zeros(len(words), np.bool_)
    for first in range(0, bands, BANDS_AT_ONCE):
        some = min(BANDS_AT_ONCE, bands - first)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets.astype(np.uint64), some * rows, SEED + first
        )
        lsh = RMinHashLSH(settings.threshold, some * rows, some)
        flags |= np.array(lsh.query_duplicate_flags_matrix_one_shot(matrix), np.bool_)
    return flags


def _partners(
    left: NDArray[np.int64], right: NDArray[np.int64], similarity: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each row the most similar one it was found alike with, the smallest of several; -1 for none."""
    one, other = np.concatenate([left, right]), np.concatenate([right, left])
    both = np.concatenate([similarity, similarity])
    order = np.lexsort((other, -both, one))
    rows, at = np.unique(one[order], return_index=True)
    partner, best = np.full(count, -1, np.int64), np.zeros(count)
    partner[rows], best[rows] = other[order][at], both[order][at]
    return partner, best


def _reason() -> pl.Expr:
    percent = (pl.col("similarity") * 100 + 1e-6).floor().cast(pl.Int64)
    alike = pl.format("{} % alike with line {}", percent, "like")
    chain = pl.format("{}, in a chain of such that begins with line {}", alike, "stays")
    return pl.when(pl.col("like") == pl.col("stays")).then(alike).otherwise(chain)
