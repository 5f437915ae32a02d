"""Exact arithmetic: the value of a rational expression without symbols, as a fraction."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from ernie_pipeline.grading.tree import Tree

_MAX_BITS = 400_000


class TooLarge(ValueError):
    """An expression whose value does not fit anywhere, such as 9^{9^{9^9}}."""


class Undefined(ValueError):
    """An expression without a value, such as 1/0."""


def exact(tree: Tree) -> Fraction | None:
    """The value of a rational expression without symbols; None for all others. Raises `TooLarge` and `Undefined`."""
    rule = _EXACT.get(tree[0])
    return rule(tree) if rule else None


def _exact_n(tree: Tree) -> Fraction | None:
    value: Fraction = tree[1]
    return value


def _two(tree: Tree) -> tuple[Fraction, Fraction] | None:
    one = exact(tree[1])
    if one is None:
        return None
    other = exact(tree[2])
    return None if other is None else (one, other)


def _exact_plus(tree: Tree) -> Fraction | None:
    both = _two(tree)
    return None if both is None else both[0] + both[1]


def _exact_neg(tree: Tree) -> Fraction | None:
    value = exact(tree[1])
    return None if value is None else -value


def _exact_times(tree: Tree) -> Fraction | None:
    both = _two(tree)
    return None if both is None else both[0] * both[1]


def _exact_over(tree: Tree) -> Fraction | None:
    under = exact(tree[2])
    if under == 0:
        raise Undefined("a division by 0")
    over = exact(tree[1])
    return None if over is None or under is None else over / under


def _exact_power(tree: Tree) -> Fraction | None:
    both = _two(tree)
    if both is None:
        return None
    base, exponent = both
    if exponent.denominator != 1:
        return _exact_root(base**exponent.numerator, exponent.denominator) if abs(exponent) < 100 else None
    if base == 0 and exponent <= 0:
        if exponent == 0:
            return Fraction(1)
        raise Undefined("a division by 0")
    if base in (0, 1):
        return base
    if base == -1:
        return Fraction(-1 if exponent.numerator % 2 else 1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent.numerator)
    return base**exponent.numerator if bits <= _MAX_BITS else None


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The real root where it is rational."""
    if value < 0:
        root = _exact_root(-value, degree) if degree % 2 else None
        return None if root is None else -root
    if not 0 < degree < 100:
        return None
    over, under = _integer_root(value.numerator, degree), _integer_root(value.denominator, degree)
    return None if over is None or under is None else Fraction(over, under)


def _integer_root(value: int, degree: int) -> int | None:
    if value < 2:
        return value
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    root = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * root + value // root ** (degree - 1)) // degree
        if better >= root:
            return root if root**degree == value else None
        root = better


def _exact_radical(tree: Tree) -> Fraction | None:
    degree, value = exact(tree[1]), exact(tree[2])
    if degree is None or value is None or degree.denominator != 1 or degree < 1:
        return None
    return _exact_root(value, degree.numerator)


def _exact_factorial(tree: Tree) -> Fraction | None:
    value = exact(tree[1])
    if value is None or value.denominator != 1 or not 0 <= value <= 5000:
        return None
    if tree[0] == "!!":
        return Fraction(math.prod(range(int(value), 0, -2)))
    return Fraction(math.factorial(int(value)))


def _exact_percent(tree: Tree) -> Fraction | None:
    value = exact(tree[1])
    return None if value is None else value / 100


def _exact_function(tree: Tree) -> Fraction | None:
    values = [exact(argument) for argument in tree[2]]
    known = [value for value in values if value is not None]
    rule = _EXACT_FUNCTIONS.get(tree[1])
    return rule(*known) if rule and known and len(known) == len(values) else None


def _exact_binom(n: Fraction, k: Fraction) -> Fraction | None:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= n <= 5000 or k < 0:
        return None
    return Fraction(math.comb(int(n), int(k)))


def _whole(rule: Callable[..., int]) -> Callable[..., Fraction | None]:
    def applied(*values: Fraction) -> Fraction | None:
        if any(value.denominator != 1 for value in values):
            return None
        return Fraction(rule(*(value.numerator for value in values)))

    return applied


_EXACT_FUNCTIONS: Mapping[str, Callable[..., Fraction | None]] = {
    "binom": lambda *v: _exact_binom(*v) if len(v) == 2 else None,
    "perm": lambda *v: _whole(math.perm)(*v) if len(v) == 2 and min(v) >= 0 and max(v) < 5000 else None,
    "abs": lambda *v: abs(v[0]),
    "max": lambda *v: max(v),
    "min": lambda *v: min(v),
    "floor": lambda *v: Fraction(math.floor(v[0])),
    "ceil": lambda *v: Fraction(math.ceil(v[0])),
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
}


_EXACT: Mapping[str, Callable[[Tree], Fraction | None]] = {
    "n": _exact_n, "+": _exact_plus, "neg": _exact_neg, "*": _exact_times, "/": _exact_over, "^": _exact_power,
    "root": _exact_radical, "!": _exact_factorial, "!!": _exact_factorial, "%": _exact_percent, "f": _exact_function,
}  # fmt: skip
