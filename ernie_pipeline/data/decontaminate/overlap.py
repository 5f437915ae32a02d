"""Decontamination: rows that share words with a benchmark's question, or with our own evaluation rows, are dropped.

A row is dropped when `ngram_words` words in a row stand in both questions (8, as open-r1's `scripts/decontaminate.py`
and s1 do it). A question of fewer words counts as a whole: it is a hit where it stands, as a run of words, in the
other, whichever of the two is the short one. So that "Find x." is not found everywhere, such a whole must have
`WHOLE_WORDS` words, or a digit and `WHOLE_WORDS_WITH_A_NUMBER` words; below that only two equal questions are a hit.
Words are those of `words.py`. Runs are found by their 64-bit hashes and then compared word by word.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ernie_pipeline.data.filter.reasons import drop_rows
from ernie_pipeline.data.normalize.words import (
    Hashes,
    Positions,
    Words,
    ngrams,
    rolling_hashes,
    run_counts,
    split_words,
    spread,
    word_lists,
)
from ernie_pipeline.recipe.sections import Decontamination

WHOLE_WORDS = 5
WHOLE_WORDS_WITH_A_NUMBER = 3
BENCHMARKS = "benchmark_overlap"
EVALUATION = "evaluation_overlap"

MOST_TABLE_BITS = 24
"""16 MiB."""

OVERLAPS = pl.Schema({"index": pl.UInt32, "set": pl.String, "row": pl.Int64, "words": pl.String})
RUNS = pl.Schema({"length": pl.Int64, "hash": pl.UInt64, "owner": pl.UInt32, "place": pl.UInt32})
"""A run of `length` words of the question or the reference `owner` (its number), from its word `place` on."""
HITS = pl.Schema([*RUNS.items(), ("owner_of_reference", pl.UInt32), ("place_of_reference", pl.UInt32)])
"""A question's run (`RUNS`) and a reference's with the same hash."""


def overlaps(
    questions: pl.Series, references: pl.DataFrame, ngram_words: int, words: Words | None = None
) -> pl.DataFrame:
    """`OVERLAPS`: for each question (its `index`) that shares words with a reference, the first such one and the words.

    `references`: `set`, `row`, `question`; the first is the smallest `set`, then `row`. `words`: those of `questions`,
    where they were split already. Neither order nor threads matter. Memory is linear in the references and in `words`.
    """
    if references.is_empty():
        return pl.DataFrame(schema=OVERLAPS)
    references = references.sort("set", "row", "question")
    asked, known = _Texts(questions, ngram_words, words), _Texts(references["question"], ngram_words)
    found = [_verified(hits, questions, references) for hits in _hits(asked, known)]
    first = pl.concat(found).sort("index", "reference").unique("index", keep="first", maintain_order=True)
    return first.drop("reference")


def decontaminate(
    rows: pl.DataFrame,
    references: pl.DataFrame,
    settings: Decontamination,
    name: str = BENCHMARKS,
    words: Words | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): rows that share nothing with a reference, and the others as rows of the ledger of drops.

    `name` is the filter's name there. `references` and `words` as for `overlaps`; kept rows stay in their order.
    """
    if not settings.enabled:
        references = references.clear()
    found = overlaps(rows["question"], references, settings.ngram_words, words)
    shared = found.select(pl.format('shares "{}" with {} row {}', "words", "set", "row")).to_series()
    reasons = pl.repeat(None, rows.height, dtype=pl.String, eager=True).scatter(found["index"], shared)
    kept, dropped = pl.collect_all(drop_rows(rows.lazy(), name, pl.lit(reasons)))
    return kept, dropped


def references_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Our own evaluation rows (`line`, `question`) as references."""
    return rows.select(set=pl.lit("evaluation"), row=pl.col("line").cast(pl.Int64), question=pl.col("question"))


class _Texts:
    """Questions or references: their words, and which of the short ones may be found inside others."""

    def __init__(self, texts: pl.Series, n: int, words: Words | None = None):
        self.words, self.n = split_words(texts) if words is None else words, n
        has_digit = texts.fill_null("").str.contains(r"\p{N}").to_numpy()
        enough = np.where(has_digit, WHOLE_WORDS_WITH_A_NUMBER, WHOLE_WORDS)
        self.is_short = self.words.lengths < n
        self.is_inside = self.is_short & (self.words.lengths >= enough)

    def runs(self, texts: NDArray[np.bool_]) -> pl.DataFrame:
        """`RUNS` of these texts: all of `n` words, and of a short text its whole."""
        rows = np.flatnonzero(texts)
        words = self.words.take(rows)
        counts = run_counts(words.lengths, self.n)
        columns = {
            "length": np.repeat(np.minimum(words.lengths, self.n), counts),
            "hash": ngrams(words, self.n)[0],
            "owner": np.repeat(rows, counts),
            "place": spread(np.zeros(len(rows), np.int64), counts),
        }
        return pl.DataFrame(columns, schema=RUNS)


def _hits(asked: _Texts, known: _Texts) -> Iterator[pl.DataFrame]:
    """`HITS`, each with the first reference that has the run, in parts that are not large."""
    runs = known.runs(~known.is_short | known.is_inside)
    yield from _search(asked.words, runs, asked.n)
    short = asked.runs(asked.is_inside)
    in_known = [
        found.select("length", "hash", *(pl.col(name).alias(f"{name}_of_reference") for name in ("owner", "place")))
        for found in _search(known.words, short, known.n)
    ]
    tiny = known.runs(known.is_short & ~known.is_inside)  # too short to be looked for inside others: equal ones only
    in_known.append(tiny.rename({"owner": "owner_of_reference", "place": "place_of_reference"}))
    every = pl.concat([short, asked.runs(asked.is_short & ~asked.is_inside)])
    of_references = pl.concat(in_known).sort("owner_of_reference", "place_of_reference")
    first = of_references.unique(["length", "hash"], keep="first", maintain_order=True)
    yield every.join(first, on=["length", "hash"]).select(HITS.names())


def _search(words: Words, runs: pl.DataFrame, n: int) -> Iterator[pl.DataFrame]:
    """`HITS` wherever in the texts one of `runs` stands, with the first of equal runs as the reference's."""
    tables = {length: _Table(part) for (length,), part in runs.group_by("length")}
    for first, part in words.chunks():
        found = [pl.DataFrame(schema=HITS)]
        for length, hashes in rolling_hashes(part, n):
            if length in tables:
                found.append(_found(tables[length], part, first, length, hashes))
        yield pl.concat(found)


def _found(table: "_Table", words: Words, first: int, length: int, hashes: Hashes) -> pl.DataFrame:
    positions, entries = table.find(hashes)
    owner = np.searchsorted(words.offsets, positions, side="right") - 1
    fits = positions + length <= words.offsets[owner + 1]  # the others run over the end of a text
    positions, entries, owner = positions[fits], entries[fits], owner[fits]
    columns = {
        "length": np.full(len(positions), length),
        "hash": hashes[positions],
        "owner": owner + first,
        "place": positions - words.offsets[owner],
        "owner_of_reference": table.owners[entries],
        "place_of_reference": table.positions[entries],
    }
    return pl.DataFrame(columns, schema=HITS)


class _Table:
    """Runs of one length by their hash, of equal ones the first; at least one. Most others are known by their hash's
    first bits alone to be none of them.
    """

    def __init__(self, runs: pl.DataFrame):
        self.hashes, first = np.unique(runs["hash"].to_numpy(), return_index=True)  # runs are by owner and place
        self.owners, self.positions = runs["owner"].to_numpy()[first], runs["place"].to_numpy()[first]
        self.shift = np.uint64(64 - min(len(self.hashes).bit_length() + 4, MOST_TABLE_BITS))
        self.beginnings = np.zeros(1 << (64 - int(self.shift)), np.bool_)
        self.beginnings[self.hashes >> self.shift] = True

    def find(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """(positions in `hashes` of those that are here, number of the run here)."""
        maybe = np.flatnonzero(self.beginnings[hashes >> self.shift])
        at = np.minimum(np.searchsorted(self.hashes, hashes[maybe]), len(self.hashes) - 1)
        equal = self.hashes[at] == hashes[maybe]
        return maybe[equal], at[equal]


def _verified(hits: pl.DataFrame, questions: pl.Series, references: pl.DataFrame) -> pl.DataFrame:
    """`OVERLAPS` with the number of the reference: the first hit of each question whose words, too, are equal."""
    hits = hits.sort("owner", "owner_of_reference", "place", "length", "place_of_reference")
    found: list[tuple[int, str, int, str, int]] = []
    while not hits.is_empty():
        first = hits.unique("owner", keep="first", maintain_order=True)
        known_rows = first["owner_of_reference"].unique()
        known = dict(zip(known_rows, word_lists(references["question"].gather(known_rows)), strict=True))
        names = dict(zip(known_rows, references[known_rows].select("set", "row").iter_rows(), strict=True))
        asked = word_lists(questions.gather(first["owner"]))
        equal = []
        columns = first.select("owner", "owner_of_reference", "place", "place_of_reference", "length").iter_rows()
        for words, (owner, other, place, other_place, length) in zip(asked, columns, strict=True):
            run = words[place : place + length]
            if run == known[other][other_place : other_place + length]:
                found.append((owner, *names[other], " ".join(run), other))
                equal.append(owner)
        rest = pl.int_range(pl.len()).over("owner") > 0
        hits = hits.filter(rest & ~pl.col("owner").is_in(equal))
    return pl.DataFrame(found, schema=[*OVERLAPS.items(), ("reference", pl.UInt32)], orient="row")
