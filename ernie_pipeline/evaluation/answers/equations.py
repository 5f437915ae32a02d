r"""Equations and inequalities as a whole: equal up to a constant factor, or solved for one of their symbols."""

from collections.abc import Mapping
from typing import Any

from mpmath import mp

from ernie_pipeline.evaluation.answers.numeric import DIGITS, evaluate, points
from ernie_pipeline.evaluation.answers.relations import as_leaf
from ernie_pipeline.evaluation.answers.structure import Leaf, Named, Relation, Value
from ernie_pipeline.evaluation.answers.tree import Tree, symbols

_FAILURES = (ValueError, ArithmeticError, TypeError, KeyError)


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
        except _FAILURES:
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
            except _FAILURES:
                continue
            small = mp.mpf(10) ** (12 - DIGITS) * (1 + abs(at[1]))
            if abs(at[0]) > small or abs(at[1]) <= small or abs(at[2] - 2 * at[1] + at[0]) > small:
                return False
            found += 1
        return found > 1
