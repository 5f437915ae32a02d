r"""Equations and inequalities as a whole: equal up to a constant factor, or solved for one of their symbols."""

from collections.abc import Mapping
from typing import Any

from mpmath import mp

from ernie_pipeline.grading.numeric import DIGITS, FAILURES, evaluate, points
from ernie_pipeline.grading.regions import number
from ernie_pipeline.grading.relations import as_leaf
from ernie_pipeline.grading.structure import Leaf, Named, Region, Relation, Value
from ernie_pipeline.grading.tree import Tree, symbols


def same_equation(one: Value, other: Value) -> bool:
    """Whether left - right of one is a constant times that of the other, or one is the other, solved for a symbol.

    2y = 4x + 2 is y = 2x + 1, and y = 1/x is xy = 1; y = y is nothing.
    """
    first, second = difference(one), difference(other)
    if first is None or second is None:
        return False
    if _ratio_is_constant(first, second, positive=False):
        return True
    return _solves(one, second) or _solves(other, first)


def same_inequality(one: Relation, other: Relation) -> bool:
    """Whether left - right of one is a positive constant times that of the other; of "!=", any constant but 0."""
    first, second = difference(one), difference(other)
    if first is None or second is None:
        return False
    return _ratio_is_constant(first, second, positive=one.operator != "!=")


def same_solutions(relation: Relation, region: Region | None) -> bool:
    """Whether an inequality in one symbol holds just where the region says: at its ends, beside them, and on a grid."""
    left, right = relation.left, relation.right
    if region is None or not isinstance(left, Leaf) or not isinstance(right, Leaf):
        return False
    names = symbols(left.tree) | symbols(right.tree)
    ends = [number(end) for interval in region.intervals for end in (interval.low, interval.high)]
    if len(names) != 1 or region.name not in (None, *names) or any(end is None for end in ends):
        return False
    name, finite = next(iter(names)), [end for end in ends if not mp.isinf(end)]
    reach = 3 * max([abs(end) for end in finite], default=mp.mpf(1)) + 10
    tried = [end + step for end in finite for step in (0, mp.mpf("1e-7"), -mp.mpf("1e-7"))]
    tried += [reach * (2 * mp.mpf(k) / 301 - 1) for k in range(302)] + [1000 * reach, -1000 * reach]
    return all(_holds(relation.operator, left.tree, right.tree, {name: at}) == _inside(region, at) for at in tried)


def _holds(operator: str, left: Tree, right: Tree, values: Mapping[str, Any]) -> bool:
    try:
        one, other = evaluate(left, values), evaluate(right, values)
    except FAILURES:
        return False
    if mp.im(one) != 0 or mp.im(other) != 0:
        return False
    if abs(one - other) <= mp.mpf(10) ** -12 * (abs(one) + abs(other)):
        return operator == "<="
    return bool(one != other) if operator == "!=" else operator in ("<", "<=") and bool(one < other)


def _inside(region: Region, at: Any) -> bool:
    for interval in region.intervals:
        low, high = number(interval.low), number(interval.high)
        above = at > low or (at == low and interval.low_closed)
        if above and (at < high or (at == high and interval.high_closed)):
            return True
    return False


def difference(value: Value) -> Tree | None:
    """left - right; None where a side is no expression."""
    if isinstance(value, Named) and value.left is not None:
        left, right = Leaf(value.left), as_leaf(value.value)
    elif isinstance(value, Relation):
        left, right = as_leaf(value.left), as_leaf(value.right)  # type: ignore[assignment]
    else:
        return None
    if isinstance(left, Leaf) and isinstance(right, Leaf):
        return ("+", left.tree, ("neg", right.tree))
    return None


def _sampled(trees: tuple[Tree, ...], fixed: Mapping[str, Any] = {}) -> list[list[Any]]:
    names = frozenset().union(*(symbols(tree) for tree in trees))
    out = []
    for values in points(names):
        try:
            out.append([evaluate(tree, {**values, "base of log": mp.e, **fixed}) for tree in trees])
        except FAILURES:
            continue
    return out


def _ratio_is_constant(first: Tree, second: Tree, *, positive: bool) -> bool:
    if not symbols(first) or not symbols(second):
        return False
    with mp.workdps(DIGITS):
        ratios = []
        for one, other in _sampled((first, second)):
            if (mp.im(one) == 0) != (mp.im(other) == 0):
                continue
            if abs(one) < mp.mpf(10) ** (10 - DIGITS) or abs(other) < mp.mpf(10) ** (10 - DIGITS):
                return False
            ratios.append(one / other)
        if len(ratios) < 2 or (positive and not (mp.im(ratios[0]) == 0 and mp.re(ratios[0]) > 0)):
            return False
        return all(abs(ratio - ratios[0]) <= mp.mpf(10) ** (12 - DIGITS) * abs(ratios[0]) for ratio in ratios)


def _solves(named: Value, equation: Tree) -> bool:
    """Whether `named` (y = ...) is the equation (... = 0), solved for y: it fulfils it, and it is linear in y."""
    if not isinstance(named, Named) or named.left is None or not isinstance(named.value, Leaf):
        return False
    if named.name not in symbols(equation) or named.left[0] != "s":
        return False
    with mp.workdps(DIGITS):
        found = 0
        for values in points(symbols(equation) | symbols(named.value.tree)):
            try:
                solution = evaluate(named.value.tree, values)
                at = [evaluate(equation, {**values, named.name: solution + step}) for step in (0, 1, 2)]
            except FAILURES:
                continue
            small = mp.mpf(10) ** (12 - DIGITS) * (1 + abs(at[1]))
            if abs(at[0]) > small or abs(at[1]) <= small or abs(at[2] - 2 * at[1] + at[0]) > small:
                return False
            found += 1
        return found > 1
