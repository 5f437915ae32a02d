"""Which right solutions of a problem are kept: distinct ones, of all lengths, in whatever order they came."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ernie_pipeline.solutions.choose import choose, same_solution

solutions = st.lists(st.tuples(st.text("ab \n1", max_size=6), st.integers(1, 40)), max_size=30)
keeps = st.integers(1, 8)


def chosen(found: list[tuple[str, int]], keep: int) -> list[tuple[str, int]]:
    return [found[i] for i in choose([text for text, _ in found], [length for _, length in found], keep)]


@given(solutions, keeps)
def test_as_many_distinct_ones_as_there_are_and_are_wanted(found: list[tuple[str, int]], keep: int) -> None:
    forms = [same_solution(text) for text, _ in chosen(found, keep)]
    assert len({*forms}) == len(forms) == min(keep, len({same_solution(text) for text, _ in found}))


@given(solutions, keeps, st.randoms(use_true_random=False))
def test_their_order_decides_nothing(found: list[tuple[str, int]], keep: int, order: random.Random) -> None:
    shuffled = order.sample(found, len(found))
    assert sorted(chosen(shuffled, keep)) == sorted(chosen(found, keep))


@given(solutions, st.integers(2, 8))
def test_the_shortest_and_the_longest_are_among_them(found: list[tuple[str, int]], keep: int) -> None:
    shortest: dict[str, int] = {}
    for text, length in found:
        form = same_solution(text)
        shortest[form] = min(length, shortest.get(form, length))
    lengths = [length for _, length in chosen(found, keep)]
    if shortest:
        assert min(lengths) == min(shortest.values())
    if len(shortest) > 1:
        assert max(lengths) == max(shortest.values())


@given(solutions, keeps)
def test_indices_ascend_and_are_of_the_solutions(found: list[tuple[str, int]], keep: int) -> None:
    indices = choose([text for text, _ in found], [length for _, length in found], keep)
    assert indices == sorted({*indices})
    assert all(0 <= i < len(found) for i in indices)


def test_they_are_spread_over_the_lengths() -> None:
    texts = [str(n) for n in range(100)]
    assert choose(texts, list(range(100)), 5) == [0, 25, 50, 74, 99]
    assert choose(texts, list(range(100)), 1) == [50]


def test_white_space_makes_no_other_solution_and_the_shortest_stands_for_all() -> None:
    assert choose(["3 + 4 = 7", "3+4=7", "4+3=7", "3+4\n= 7"], [9, 5, 6, 7], 8) == [1, 2]
