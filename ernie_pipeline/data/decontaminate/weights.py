r"""How much each token and pair of tokens says: much when few rows of the source have it, nothing when many have.

The features of a question are its tokens and its pairs of neighbouring tokens, each once. A feature that `df` of N
questions have weighs

    w = max(0, log(COMMON * N / df)),

the inverse document frequency (Sparck Jones, "A statistical interpretation of term specificity and its application in
retrieval", Journal of Documentation, 1972), less that of a feature which `COMMON` of all questions have: that one
weighs nothing. N and `df` count the rows of the source, the references, and the imagined rows of `stock.py`.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ernie_pipeline.data.decontaminate import stock
from ernie_pipeline.data.decontaminate.tokens import tokens_of
from ernie_pipeline.data.normalize.words import THREADS, Hashes, Positions, Words, rolling_hashes

COMMON = 0.1
"""A contest's stock phrase is in a tenth to a third of its problems, and hardly any content is in so many."""
MOST_BUCKET_BITS = 24
"""64 MiB."""

T = TypeVar("T", bound=np.generic)
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """The features of some questions, in their order: `owners` [pairs], and `numbers` [pairs] of the features."""

    owners: Positions
    numbers: Positions


class FeatureTable:
    """A sorted list of features' hashes, in which those of texts are found: by their first bits they are in a bucket of
    at most a few, which is where a binary search would end after twenty steps through memory.
    """

    def __init__(self, hashes: Hashes):
        self.hashes = distinct(hashes)
        bits = min(len(self.hashes).bit_length() + 1, MOST_BUCKET_BITS)
        self._shift = np.uint64(64 - bits)
        bounds = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._starts = np.append(np.searchsorted(self.hashes, bounds), len(self.hashes)).astype(np.int32)
        self._most = int(np.diff(self._starts).max())

    def positions(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """(positions in `hashes` of those that are here, number of the feature here)."""
        buckets = hashes >> self._shift
        at, ends = self._starts[buckets], self._starts[buckets + np.uint64(1)]
        found, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        maybe = np.flatnonzero(at < ends)
        for step in range(self._most):
            maybe = maybe[at[maybe] + step < ends[maybe]]
            equal = maybe[self.hashes[at[maybe] + step] == hashes[maybe]]
            found.append(equal)
            numbers.append(at[equal].astype(np.int64) + step)
        return np.concatenate(found), np.concatenate(numbers)

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, words: Words) -> Features:
        """The features of the table in each row, each once a row; sorted by row and feature."""
        size, parts = len(self) + 1, [(0, np.empty(0, np.int64)), *self._keys(words)]
        owners = np.concatenate([keys // size + first for first, keys in parts])
        return Features(owners, np.concatenate([keys % size for _, keys in parts]))

    def counts(self, words: Words) -> Positions:
        """In how many rows each feature is."""
        counts = np.zeros(len(self), np.int64)
        for _, keys in self._keys(words):
            counts += np.bincount(keys % (len(self) + 1), minlength=len(self))
        return counts

    def _keys(self, words: Words) -> Iterator[tuple[int, Positions]]:
        """For each run of rows: its first row, and the features as `row in the run * (len(self) + 1) + number`."""
        of_codes = np.full(len(words.vocabulary), -1, np.int64)
        positions, numbers = self.positions(words.vocabulary)
        of_codes[positions] = numbers

        def keys(some: tuple[int, Words]) -> tuple[int, Positions]:
            first, part = some
            owner_of = np.repeat(np.arange(len(part)), part.lengths)
            single = of_codes[part.codes]
            is_here = single >= 0
            owners, hashes = pair_hashes(part, owner_of)
            positions, numbers = self.positions(hashes)
            found = (owner_of[is_here], single[is_here]), (owners[positions], numbers)
            return first, distinct(np.concatenate([owner * (len(self) + 1) + number for owner, number in found]))

        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(keys, words.chunks())


def distinct(values: NDArray[T]) -> NDArray[T]:
    """As `np.unique`, which hashes from NumPy 2.3 on: with many distinct values, fifty times as slow as sorting."""
    values = np.sort(values)
    is_first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    first: NDArray[T] = values[is_first]
    return first


def pair_hashes(words: Words, owner_of: Positions) -> tuple[Positions, Hashes]:
    """(row, hash) of every pair of neighbours in one row; `owner_of`: each token's row."""
    (_, hashes), *pairs = rolling_hashes(words, 2)
    inside = np.flatnonzero(owner_of[1:] == owner_of[:-1])
    return owner_of[inside], pairs[0][1][inside] if pairs else hashes[:0]


def table_of(words: Words) -> FeatureTable:
    """Every feature of these questions."""
    owner_of = np.repeat(np.arange(len(words)), words.lengths)
    return FeatureTable(np.concatenate([words.vocabulary[distinct(words.codes)], pair_hashes(words, owner_of)[1]]))


@dataclass(frozen=True)
class Source:
    """All rows among which features are counted: `lines` [rows], ascending or not, and the `tokens` of each one."""

    lines: pl.Series
    tokens: Words

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Source":
        """The source of `rows` (`line`, `question`)."""
        return cls(rows["line"], tokens_of(rows["question"]))

    def take(self, lines: pl.Series) -> Words:
        """The tokens of the rows in these lines."""
        if lines.equals(self.lines):
            return self.tokens
        wanted = lines.alias("line").to_frame().join(self._positions, on="line", how="left", maintain_order="left")
        return self.tokens.take(wanted["position"].to_numpy())

    @cached_property
    def _positions(self) -> pl.DataFrame:
        return self.lines.alias("line").to_frame().with_row_index("position")

    def weights(self, table: FeatureTable, references: Words, found: Features | None = None) -> Weights:
        """The weight of each feature of `table`. `found`: its features in all rows, where that is known."""
        in_rows = table.counts(self.tokens) if found is None else np.bincount(found.numbers, minlength=len(table))
        return weight(in_rows + table.counts(references) + stock_counts(table), self.questions(references))

    def questions(self, references: Words) -> int:
        """How many questions are counted."""
        return len(self.tokens) + len(references) + stock.ROWS


def weight(counts: NDArray[np.integer] | int, questions: int) -> Weights:
    """The weight of features that so many of the questions have."""
    rarity: Weights = np.log(COMMON * questions / np.maximum(counts, 1))
    return np.maximum(rarity, 0.0)


def stock_counts(table: FeatureTable) -> Positions:
    """In how many of the imagined rows each feature is."""
    counts = np.zeros(len(table), np.int64)
    counts[table.find(_stock_tokens()).numbers] = round(stock.SHARE * stock.ROWS)
    return counts


@cache
def _stock_tokens() -> Words:
    return tokens_of(pl.Series([*stock.PHRASES.split("\n\n"), *stock.WORDS.split()]))
