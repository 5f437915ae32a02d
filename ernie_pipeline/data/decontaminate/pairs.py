"""Which references and rows share most of what weighs something: found by rare features, then scored by all."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from ernie_pipeline.data.decontaminate.weights import Features, FeatureTable, Source, Weights, table_of, weight
from ernie_pipeline.data.normalize.words import Positions, Words

LEAST, ENOUGH = 2.0, 6.0
"""Evidence, in weights of a feature that nobody else has."""
RARE, FEW = 0.002, 100
"""Pairs are found by features that this share of the rows has at most, or so few of them."""
FOUND = 0.25
"""Of the weight of a reference's rare features, what a row must share to be scored."""
PLAIN = 0.5
"""Of the shorter one's features, those that both have at least, whatever they weigh: where each family of problems is
so common that its words weigh nothing, numbers alone would make "gcd of 44 and 82" and "44 + 82" the same."""
NEARLY_ALL = 0.75
"""Of the longer one's features: evidence too, in a source of few templates, where no feature weighs much."""
PRODUCTS_AT_ONCE = 1 << 24
PAIRS_AT_ONCE = 1 << 16

EQUAL = pl.Schema({"reference": pl.Int64, "index": pl.Int64, "score": pl.Float64})
PAIRS = pl.Schema([*EQUAL.items(), ("is_much", pl.Boolean), ("is_some", pl.Boolean)])
"""`is_some`: what is shared is `LEAST` evidence. `is_much`: it is half of the row besides, or `ENOUGH`."""


def alike_pairs(known: Words, asked: Words, source: Source, overlap: float) -> Iterator[pl.DataFrame]:
    """`PAIRS` of references and rows whose score is `overlap` at least; in parts."""
    table = table_of(known)
    found = table.find(asked)
    weights = source.weights(table, known, found if asked is source.tokens else None)
    plain, rows = _matrix(table, known, table.find(known)), _matrix(table, asked, found)
    heavy = csr_array(plain.multiply(weights[np.newaxis, :]))
    of_known = _sums(heavy)
    parts = [_worth_scoring(plain, heavy, rows, part, overlap) for part in _candidates(heavy, rows, len(source.tokens))]
    if not parts:
        return
    references, indices, shared, common = (np.concatenate(column) for column in zip(*parts, strict=True))
    of_asked, size_of_asked = _weights_of(asked, indices, source, known)
    of_known, sizes = of_known[references], (_sums(plain)[references], size_of_asked)
    score = shared / np.maximum(np.minimum(of_known, of_asked), of_known / 2)
    lonely = float(weight(np.array(1), source.questions(known)))
    evidence = np.maximum(np.minimum(of_asked / 2, ENOUGH * lonely), LEAST * lonely)
    columns = {
        "reference": references,
        "index": indices,
        "score": np.minimum(score, 1.0),
        "is_some": shared >= LEAST * lonely,
        "is_much": (shared >= evidence) | (common >= NEARLY_ALL * np.maximum(*sizes)),
    }
    pairs = pl.DataFrame(columns, schema=PAIRS).filter((score >= overlap) & (common >= PLAIN * np.minimum(*sizes)))
    yield from pairs.iter_slices(PAIRS_AT_ONCE)


def _worth_scoring(
    plain: csr_array, heavy: csr_array, rows: csr_array, pairs: tuple[Positions, Positions], overlap: float
) -> tuple[Positions, Positions, Weights, Weights]:
    """(references, rows, weight and number of the features they share) of the pairs that may reach `overlap`."""
    references, indices = pairs
    shared = _sums(heavy[references].multiply(rows[indices]))
    enough = shared >= overlap * _sums(heavy)[references] / 2
    references, indices = references[enough], indices[enough]
    return references, indices, shared[enough], _sums(plain[references].multiply(rows[indices]))


def _matrix(table: FeatureTable, words: Words, found: Features) -> csr_array:
    """Ones [questions, features of the table] where a question has a feature."""
    starts = np.searchsorted(found.owners, np.arange(len(words) + 1))
    ones = np.ones(len(found.numbers), np.float64)
    return csr_array((ones, found.numbers, starts), shape=(len(words), len(table)))


def _sums(matrix: csr_array) -> Weights:
    return np.asarray(matrix.sum(axis=1), np.float64).ravel()


def _candidates(heavy: csr_array, rows: csr_array, size: int) -> Iterator[tuple[Positions, Positions]]:
    """(references, rows) that share `FOUND` of the weight of a reference's rare features; no pair twice."""
    in_rows = np.bincount(rows.indices, minlength=rows.shape[1])
    is_rare = np.flatnonzero((in_rows > 0) & (in_rows <= max(FEW, RARE * size)))
    by_feature = csr_array(rows[:, is_rare].T)
    rare = csr_array(heavy[:, is_rare])
    wanted = FOUND * _sums(rare)
    products = np.zeros(heavy.shape[0] + 1, np.int64)
    np.cumsum(
        np.add.reduceat(np.append(in_rows[is_rare][rare.indices], 0), rare.indptr[:-1]) * (np.diff(rare.indptr) > 0),
        out=products[1:],
    )
    first = 0
    while first < heavy.shape[0]:
        last = max(first + 1, int(np.searchsorted(products, products[first] + PRODUCTS_AT_ONCE, side="right")) - 1)
        shared = (rare[first:last] @ by_feature).tocoo()
        references, indices = shared.coords[0] + first, shared.coords[1].astype(np.int64)
        found = np.flatnonzero((shared.data > 0) & (shared.data >= wanted[references]))
        for start in range(0, len(found), PAIRS_AT_ONCE):
            part = found[start : start + PAIRS_AT_ONCE]
            yield references[part].astype(np.int64), indices[part]
        first = last


def _weights_of(asked: Words, indices: Positions, source: Source, known: Words) -> tuple[Weights, Weights]:
    """The weight of all features of each of these rows, and how many there are."""
    distinct, places = np.unique(indices, return_inverse=True)
    words = asked.take(distinct)
    table = table_of(words)
    matrix = _matrix(table, words, table.find(words))
    sums: Weights = matrix @ source.weights(table, known)
    return sums[places], _sums(matrix)[places]
