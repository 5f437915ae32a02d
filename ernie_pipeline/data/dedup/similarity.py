"""Which sets are alike: every pair whose exact Jaccard similarity reaches a threshold, without comparing all pairs.

A prefix filter: where the elements of each set stand in one order, the rarest first, two sets of similarity t or more
have an element in common among the first |x| - ceil(2t/(1+t) |x|) + 1 of the smaller set x and the first
|y| - ceil(t |y|) + 1 of the larger set y (Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007;
Xiao, Wang, Lin, Yu, Wang, "Efficient similarity joins for near-duplicate detection", TODS 2011, lemma 3). What
thousands of questions share, the words of a template, is nobody's rarest, so that they are not compared for it.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from ernie_pipeline.data.normalize.words import Hashes, Positions

MOST_ROUNDS = 512
"""Sets of one list that all others of it are compared with, before the rest of the list is taken to be alike."""
MOST_PAIRS = 200
"""Comparisons for each set, on average, before the same is done."""
PAIRS_AT_ONCE = 65_536
SETS_AT_ONCE = 16_384
EPSILON = 1e-9

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class AlikePairs:
    """`left[i]` and `right[i]` have the similarity `similarity[i]`. `assumed_left/right`: pairs that were not compared,
    since too many sets had the same rare element; who needs every similar pair to be together must keep them together.
    """

    left: Ids
    right: Ids
    similarity: NDArray[np.float64]
    assumed_left: Ids
    assumed_right: Ids


class Sets:
    """Sets of hashes, numbered from 0: `hashes` with the offsets of each set's; a hash may stand twice in a set."""

    def __init__(self, hashes: Hashes, offsets: Positions):
        count = len(offsets) - 1
        owners, hashes = _distinct(hashes, offsets)
        self.sizes: Ids = np.bincount(owners, minlength=count)
        elements = pl.DataFrame({"set": owners, "hash": hashes}).with_columns(frequency=pl.len().over("hash"))
        elements = elements.filter(pl.col("frequency") > 1)  # the others are in no two sets; they come first in each
        lonely = self.sizes - np.bincount(elements["set"].to_numpy(), minlength=count)
        elements = elements.sort("set", "frequency", "hash")
        place = pl.int_range(pl.len()).over("set") + pl.Series(lonely)[elements["set"]]
        element = pl.col("hash").rank("dense").cast(pl.Int32) - 1
        self.shared = elements.select("set", place=place, element=element)
        starts = np.searchsorted(self.shared["set"].to_numpy(), np.arange(count + 1))
        columns = self.shared["element"].to_numpy().copy()  # scipy sorts them in place
        width = int(columns.max()) + 1 if len(columns) else 1
        self.table = csr_array((np.ones(len(columns), np.int8), columns, starts), shape=(count, width))
        self.table.sort_indices()

    def similarity(self, left: Ids, right: Ids) -> NDArray[np.float64]:
        """The Jaccard similarity of each pair: elements in both over elements in either."""
        common = np.empty(len(left), np.int64)
        for start in range(0, len(left), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            common[part] = self.table[left[part]].multiply(self.table[right[part]]).sum(axis=1, dtype=np.int64)
        either = self.sizes[left] + self.sizes[right] - common
        return np.asarray(common / np.maximum(either, 1), np.float64)


def alike_pairs(sets: Sets, threshold: float) -> AlikePairs:
    """Pairs of similarity `threshold` or more that link all sets which such pairs link; not all pairs there are.

    Each round takes the smallest set of every list of sets with the same rare element, and compares with it those of
    the list that nothing has linked with it yet. `MOST_ROUNDS` and `MOST_PAIRS` keep the time linear in the elements.
    """
    lists = _lists(sets, threshold)
    found: list[tuple[Ids, Ids, NDArray[np.float64]]] = []
    component: Ids = np.arange(len(sets.sizes))
    compared = 0
    for _ in range(MOST_ROUNDS):
        lists = _open_lists(lists, component)
        if lists.is_empty() or compared > MOST_PAIRS * len(component):
            break
        left, right = _with_first(lists, sets.sizes, component, threshold)
        compared += len(left)
        similarity = sets.similarity(left, right)
        alike = similarity >= threshold - EPSILON
        found.append((left[alike], right[alike], similarity[alike]))
        component = components(len(sets.sizes), [(component, np.arange(len(component))), (left[alike], right[alike])])
        lists = lists.filter(pl.int_range(pl.len()).over("element") > 0)
    rest = _open_lists(lists, component)
    first = rest.select(pl.col("set").first().over("element")).to_series()
    left, right, similarity = (np.concatenate(parts) for parts in zip(_NOTHING, *found, strict=True))
    return AlikePairs(
        left, right, similarity, first.to_numpy().astype(np.int64), rest["set"].to_numpy().astype(np.int64)
    )


def components(count: int, links: list[tuple[Ids, Ids]]) -> Ids:
    """For each of `count` things the smallest that the links lead to."""
    left, right = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    total, labels = connected_components(graph, directed=False)
    smallest = np.full(total, count, np.int64)
    np.minimum.at(smallest, labels, np.arange(count))
    component: Ids = smallest[labels]
    return component


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def _distinct(hashes: Hashes, offsets: Positions) -> tuple[NDArray[np.uint32], Hashes]:
    """(set, hash) of each element once, by set and hash; a part of the sets at a time, which takes less memory."""
    owners, kept = [np.empty(0, np.uint32)], [np.empty(0, np.uint64)]
    for start in range(0, len(offsets) - 1, SETS_AT_ONCE):
        bounds = offsets[start : start + SETS_AT_ONCE + 1]
        part = hashes[bounds[0] : bounds[-1]]
        owner = np.repeat(np.arange(start, start + len(bounds) - 1, dtype=np.uint32), np.diff(bounds))
        order = np.lexsort((part, owner))
        owner, part = owner[order], part[order]
        is_new = np.ones(len(part), np.bool_)
        is_new[1:] = (owner[1:] != owner[:-1]) | (part[1:] != part[:-1])
        owners.append(owner[is_new])
        kept.append(part[is_new])
    return np.concatenate(owners), np.concatenate(kept)


def _lists(sets: Sets, threshold: float) -> pl.DataFrame:
    """[element, set, size, indexed], by element, size, set: the sets of which an element is one of the rarest."""
    size = pl.col("size")
    probed = size - (threshold * size - EPSILON).ceil() + 1
    indexed = size - (2 * threshold / (1 + threshold) * size - EPSILON).ceil() + 1
    entries = sets.shared.with_columns(size=pl.Series(sets.sizes)[sets.shared["set"]])
    entries = entries.filter(pl.col("place") < probed).with_columns(indexed=pl.col("place") < indexed)
    return entries.select("element", "set", "size", "indexed").sort("element", "size", "set")


def _open_lists(lists: pl.DataFrame, component: Ids) -> pl.DataFrame:
    """What is left to compare: each list from its first indexed set on, where it holds several components."""
    lists = lists.filter(pl.col("indexed").cum_max().over("element"))
    lists = lists.with_columns(component=pl.Series(component)[lists["set"]])
    return lists.filter(pl.col("component").n_unique().over("element") > 1).drop("component")


def _with_first(lists: pl.DataFrame, sizes: Ids, component: Ids, threshold: float) -> tuple[Ids, Ids]:
    """Each list's first set with each other of it that may be alike and is in another component; no pair twice."""
    first = lists.select(pl.col("set").first().over("element")).to_series().to_numpy().astype(np.int64)
    other = lists["set"].to_numpy().astype(np.int64)
    possible = (component[first] != component[other]) & (sizes[first] >= threshold * sizes[other] - EPSILON)
    pairs = np.unique(first[possible] * len(sizes) + other[possible])
    return pairs // len(sizes), pairs % len(sizes)
