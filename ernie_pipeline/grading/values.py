r"""When two expressions are equal: exactly where both are rational, else by value, to 40 digits, at several points.

Nothing is rounded to a few places: an expression is evaluated with 50 digits, and what is that close to 0 again with
more. Symbols get the same pseudo-random values on both sides. Some points have negative values; there, a side that is
not real (a root, a logarithm) does not count. What is too large to be computed is `TooLarge`.
"""

from collections.abc import Callable
from typing import Any

from mpmath import mp

from ernie_pipeline.grading.exact import TooLarge, Undefined, exact
from ernie_pipeline.grading.numeric import DIGITS, FAILURES, REAL, evaluate, near, points
from ernie_pipeline.grading.tree import Tree, called, heads, multiplied, numbers, symbols

_COMPLEX = frozenset(["i", "cis", "Re", "Im", "arg"])
_LIMITS = frozenset(["int", "lim"])
_SUMMED, _STEPPING = frozenset(["sum", "prod", "!!"]), frozenset(["floor", "ceil", "whole"])


_COUNTS = frozenset("nmk")
"""Symbols for whole numbers: (-1)^n and cos(n pi) are equal for these."""


def same_value(one: Tree, other: Tree) -> bool:
    """Whether two expressions are equal. Raises `TooLarge` where that cannot be computed."""
    if one == other:
        return not _undefined(one)
    try:
        first, second = exact(one), exact(other)
    except Undefined:
        return False
    if first is not None and second is not None:
        return first == second
    kinds = heads(one) | heads(other)
    factors = (called(one) & symbols(other)) | (called(other) & symbols(one))
    if factors:
        one, other = multiplied(one, factors), multiplied(other, factors)
    names = symbols(one) | symbols(other)
    if names and names <= _COUNTS and not kinds & _SUMMED and _same_at_points(one, other, names, kinds | {"whole"}, {}):
        return True
    for base in ({"base of log": mp.e}, {"base of log": mp.mpf(10)}) if "base of log" in names else ({},):
        if _same_at_points(one, other, names, kinds, base):
            return True
    return False


def _terms_left(one: Tree, other: Tree) -> bool:
    """Whether huge constants differ by whole terms, which no number of digits shows: (10^9)! and (10^9)! - 1."""
    first, second = _terms(one), _terms(other)
    for term in list(first):
        if term in second:
            first.remove(term)
            second.remove(term)
    return bool(len(first) + len(second)) and not (first and second)


def _terms(tree: Tree) -> list[Tree]:
    return [*_terms(tree[1]), *_terms(tree[2])] if tree[0] == "+" else [tree]


def _undefined(tree: Tree) -> bool:
    try:
        exact(tree)
    except Undefined:
        return True
    return False


def _same_at_points(
    one: Tree, other: Tree, names: frozenset[str], kinds: frozenset[str], fixed: dict[str, Any]
) -> bool:
    """Whether two expressions agree wherever both have a value, and have one somewhere."""
    loose = bool(kinds & _LIMITS or (kinds & _SUMMED and "oo" in kinds))
    one_abs = ("abs" in heads(one)) != ("abs" in heads(other))
    real = not kinds & _COMPLEX and not one_abs
    compared = 0
    with mp.workdps(DIGITS):
        for values in _samples(one, other, names - fixed.keys(), kinds):
            positive = real and all(value > 0 for value in values.values())
            here = values | fixed | ({REAL: True} if real and not positive else {})
            both = _both(one, other, here, bool(names))
            if both is None or (real and _leaves_the_reals(*both, "log" in kinds or not positive)):
                continue
            if not close(*both, lambda: (evaluate(one, here), evaluate(other, here)), loose):  # noqa: B023
                return False
            if not names and abs(both[0]) > mp.mpf(10) ** 35 and _terms_left(one, other):
                return False
            compared += 1
    return compared > 0


def _samples(one: Tree, other: Tree, names: frozenset[str], kinds: frozenset[str]) -> list[dict[str, Any]]:
    stepping = bool(kinds & _STEPPING)
    beside = near(numbers(one) | numbers(other)) if stepping else ()
    found = points(names, bool(kinds & _SUMMED), stepping, "whole" in kinds, beside)
    if kinds & _COMPLEX - {"i", "cis"}:
        found = [{name: value * mp.mpc(1, number + 1) for name, value in at.items()} for number, at in enumerate(found)]
    return found


def _both(one: Tree, other: Tree, values: dict[str, Any], sampled: bool) -> tuple[Any, Any] | None:
    """Both values; None where one side has none at this point. Raises `TooLarge` for constants."""
    try:
        return evaluate(one, values), evaluate(other, values)
    except TooLarge:
        if not sampled:
            raise
        return None
    except FAILURES:
        return None


def _leaves_the_reals(first: Any, second: Any, both: bool) -> bool:
    """Whether a point is outside of one side's real domain, or of both sides' where `both` counts."""
    imaginary = (mp.im(first) != 0) + (mp.im(second) != 0)
    return imaginary == 1 or (imaginary == 2 and both)


def close(first: Any, second: Any, again: Callable[[], tuple[Any, Any]], loose: bool = False) -> bool:
    """Whether two values agree to 40 digits (15 if `loose`); of tiny ones, whether they still do with more digits."""
    if mp.isnan(first) or mp.isnan(second):
        return False
    if mp.isinf(first) or mp.isinf(second):
        return bool(first == second)
    size, difference = max(abs(first), abs(second)), abs(first - second)
    tolerance = mp.mpf(10) ** (-12 if loose else 10 - DIGITS)
    if difference <= tolerance * size:
        return True if loose else _closer(again, size)
    if loose:
        return bool(difference <= tolerance)
    if difference > tolerance * 10**10:
        return False
    with mp.workdps(2 * DIGITS + 20):
        first, second = again()
        now = abs(first - second)  # of what is truly 0, it shrinks with the digits
        return bool(now <= mp.mpf(10) ** (-2 * DIGITS) and now <= difference * mp.mpf(10) ** (10 - DIGITS))


def _closer(again: Callable[[], tuple[Any, Any]], size: Any) -> bool:
    """Whether two values that agree still do with twice the digits; of two that are 0, whether they stay near it."""
    with mp.workdps(2 * DIGITS + 20):
        first, second = again()
        return bool(abs(first - second) <= mp.mpf(10) ** (-2 * DIGITS) * (size or 1))
