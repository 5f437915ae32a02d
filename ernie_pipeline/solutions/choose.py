"""Which of a problem's right solutions are kept: distinct ones, short and long alike."""

from collections.abc import Sequence


def same_solution(text: str) -> str:
    """The form in which two solutions are compared: without white space, which changes neither thought nor result."""
    return "".join(text.split())


def choose(texts: Sequence[str], lengths: Sequence[int], keep: int) -> list[int]:
    """The indices, ascending, of at most `keep` (at least 1) of the right solutions `texts` of one problem.

    Of those that are the same (`same_solution`) the shortest counts. Sorted by `lengths` (tokens), they are picked at
    even distances from the shortest to the longest; a single one is the one in the middle. So neither terse nor
    rambling solutions make up all that is learnt from. Which texts are chosen does not depend on their order.
    """
    order = sorted(range(len(texts)), key=lambda i: (lengths[i], texts[i], i))
    distinct: dict[str, int] = {}
    for i in order:
        distinct.setdefault(same_solution(texts[i]), i)
    found = list(distinct.values())
    return sorted(found[place] for place in _spread(len(found), keep))


def _spread(count: int, keep: int) -> list[int]:
    """At most `keep` of the places 0 to `count` - 1, the first and the last among them, at even distances."""
    if count <= keep:
        return list(range(count))
    if keep == 1:
        return [count // 2]
    return [(place * (count - 1) + (keep - 1) // 2) // (keep - 1) for place in range(keep)]
