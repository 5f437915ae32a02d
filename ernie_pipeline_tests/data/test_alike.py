import itertools
import random

import numpy as np
import pytest

from ernie_pipeline.data.dedup import similarity as alike
from ernie_pipeline.data.dedup.similarity import AlikePairs, Sets, alike_pairs, components


def sets_of(members: list[set[int]]) -> Sets:
    hashes = np.array([element for one in members for element in one], np.uint64)
    return Sets(hashes, np.cumsum([0, *map(len, members)]))


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other)


def families(count: int, seed: int) -> list[set[int]]:
    """Sets around a few centres, so that their similarities are spread over the whole range."""
    draw = random.Random(seed)
    centres = [set(draw.sample(range(60), draw.randrange(4, 24))) for _ in range(count // 8)]
    return [
        {draw.randrange(200) if draw.random() < 0.12 else element for element in draw.choice(centres)}
        for _ in range(count)
    ]


def linked(pairs: AlikePairs, count: int) -> list[int]:
    return components(count, [(pairs.left, pairs.right)]).tolist()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_what_is_linked_is_what_comparing_all_pairs_links(threshold: float) -> None:
    for seed in range(6):
        members = families(160, seed)
        pairs = alike_pairs(sets_of(members), threshold)
        every = [p for p in itertools.combinations(range(160), 2) if jaccard(*(members[i] for i in p)) >= threshold]
        left, right = (np.array([p[end] for p in every], np.int64) for end in (0, 1))
        assert linked(pairs, 160) == components(160, [(left, right)]).tolist()
        found = set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
        assert {tuple(sorted(pair)) for pair in found} <= set(every)
        assert not len(pairs.assumed_left)


def test_the_similarity_is_jaccards() -> None:
    members = [*families(40, 1), set()]
    pairs = list(itertools.combinations(range(41), 2))
    left, right = np.array(pairs).T
    expected = [jaccard(members[i], members[j]) for i, j in pairs]
    assert sets_of(members).similarity(left, right).tolist() == pytest.approx(expected)


def test_an_element_that_stands_twice_in_a_set_counts_once() -> None:
    sets = Sets(np.array([1, 1, 2, 1, 2, 2], np.uint64), np.array([0, 3, 6]))
    assert sets.similarity(np.array([0]), np.array([1])).tolist() == [1.0]


def test_what_was_not_compared_is_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    members = families(160, 3)
    sets = sets_of(members)
    whole = linked(alike_pairs(sets, 0.5), 160)
    monkeypatch.setattr(alike, "MOST_ROUNDS", 1)
    pairs = alike_pairs(sets, 0.5)
    assert len(pairs.assumed_left)
    assert linked(pairs, 160) != whole
    together = components(160, [(pairs.left, pairs.right), (pairs.assumed_left, pairs.assumed_right)])
    assert all(together[one] == together[first] for one, first in enumerate(whole))


def test_nothing_is_alike_with_nothing() -> None:
    assert len(alike_pairs(sets_of([]), 0.8).left) == 0
    assert len(alike_pairs(sets_of([{1}, {2}, set(), set()]), 0.8).left) == 0
