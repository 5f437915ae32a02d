"""Families over the whole numbers: pi/6 + k pi is 7 pi/6 + k pi, and 4k + 1 is 4k - 3."""

from typing import Any

from mpmath import mp

from ernie_pipeline.evaluation.answers.numeric import DIGITS, FAILURES, evaluate, points
from ernie_pipeline.evaluation.answers.structure import Bracket, Items, Leaf, Named, Value
from ernie_pipeline.evaluation.answers.tree import Tree, heads, symbols

PARAMETERS = frozenset("kn")
"""Letters of the whole number in a family with pi that does not say so."""


def same_family(reference: Value, answer: Value, parameter: str | None = None) -> bool:
    """Whether two values run through the same numbers while `parameter` runs through the whole numbers.

    Without one it is k or n beside pi, or k in what a letter is equal to: m = 4k + 1.
    """
    if isinstance(reference, Named) and isinstance(answer, Named) and reference.name == answer.name:
        named = len(reference.name) == 1
        reference, answer = reference.value, answer.value
    else:
        named = False
    one, other = _trees(reference), _trees(answer)
    if not one or len(one) != len(other):
        return False
    if parameter is None:
        parameter = _unsaid_parameter(one, other, named)
    shared = [set().union(*map(symbols, trees)) for trees in (one, other)]
    return parameter is not None and parameter in shared[0] & shared[1] and _shifted(one, other, parameter)


def _trees(value: Value) -> list[Tree]:
    """Of one value, of a point, or of named values in the order of their names."""
    if isinstance(value, Leaf):
        return [value.tree]
    items = value.items if isinstance(value, Bracket | Items) else ()
    if items and all(isinstance(item, Named) for item in items):
        items = tuple(sorted(items, key=lambda item: item.name if isinstance(item, Named) else ""))
        items = tuple(item.value for item in items if isinstance(item, Named))
    elif isinstance(value, Items):
        return []
    return [item.tree for item in items if isinstance(item, Leaf)] if all(isinstance(i, Leaf) for i in items) else []


def _unsaid_parameter(one: list[Tree], other: list[Tree], named: bool) -> str | None:
    if len(one) > 1:
        return None
    shared = symbols(one[0]) & symbols(other[0])
    circular = {"pi", "deg"} & heads(one[0]) & heads(other[0])
    allowed = (shared & PARAMETERS) if circular else (shared & {"k"}) if named else frozenset()
    return next(iter(allowed)) if len(allowed) == 1 and len(shared) == 1 else None


def _shifted(one: list[Tree], other: list[Tree], parameter: str) -> bool:
    """Whether all are linear in the parameter, and the one list is the other for +-k plus the same whole number."""
    rest = frozenset().union(*map(symbols, [*one, *other])) - {parameter}
    with mp.workdps(DIGITS):
        for values in points(rest):
            shifts = set()
            for first, second in zip(one, other, strict=True):
                shift = _shift(first, second, {**values}, parameter)
                if shift is None:
                    return False
                shifts.add(shift)
            if len(shifts - {"any"}) != 1:
                return False
    return True


def _shift(one: Tree, other: Tree, values: dict[str, Any], parameter: str) -> tuple[int, int] | str | None:
    """(sign, whole number) by which the parameter of one is that of the other; "any" for equal constants."""
    small = mp.mpf(10) ** (15 - DIGITS)
    try:
        runs = [[evaluate(tree, {**values, parameter: mp.mpf(k)}) for k in range(4)] for tree in (one, other)]
    except FAILURES:
        return None
    steps = [run[1] - run[0] for run in runs]
    for run, step in zip(runs, steps, strict=True):
        if any(abs(run[k + 1] - run[k] - step) > small for k in range(3)):
            return None
    if abs(steps[0]) < small or abs(abs(steps[0]) - abs(steps[1])) > small:
        return "any" if all(abs(a - b) <= small for a, b in zip(*runs, strict=True)) else None
    shift = (runs[1][0] - runs[0][0]) / steps[0]
    whole = int(mp.nint(mp.re(shift)))
    if abs(shift - whole) > small:
        return None
    return (1 if abs(steps[0] - steps[1]) <= small else -1, whole)
