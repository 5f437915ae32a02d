r"""When two expressions are equal: exactly where both are rational, else by value, to 40 digits, at several points.

Nothing is rounded to a few places: an expression is evaluated with 50 digits, and what is that close to 0 again with
more. Symbols get the same pseudo-random values on both sides. Some points have negative values; there, a side that is
not real (a root, a logarithm) does not count. What is too large to be computed is `TooLarge`.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zlib import crc32


from mpmath import mp

from ernie_pipeline.evaluation.answers.expression import Tree

DIGITS = 50
_MAX_BITS = 400_000
_MAX_TERMS = 3000
_FAILURES = (ValueError, ArithmeticError, TypeError, KeyError, mp.NoConvergence)


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


@lru_cache(maxsize=2048)
def symbols(tree: Tree) -> frozenset[str]:
    """The names of the free symbols."""
    if tree[0] == "s":
        return frozenset([tree[1]])
    found: set[str] = set()
    for part in tree[1:]:
        if isinstance(part, tuple):
            for each in [part] if part and isinstance(part[0], str) else part:
                found |= symbols(each)
    return frozenset(found - {tree[1]} if tree[0] in ("sum", "prod", "int") else found)


def heads(tree: Tree) -> frozenset[str]:
    """Which kinds of node the tree has, and which functions and constants."""
    found = {tree[0]} | ({tree[1]} if tree[0] in ("f", "c") else set())
    for part in tree[1:]:
        if isinstance(part, tuple):
            for each in [part] if part and isinstance(part[0], str) else part:
                found |= heads(each)
    return frozenset(found)


_SUMMED, _STEPPING = frozenset(["sum", "prod", "!!"]), frozenset(["floor", "ceil", "whole"])
_COUNTS = frozenset("nmk")
"""Symbols for whole numbers: (-1)^n and cos(n pi) are equal for these."""

_SAMPLES = ((1, 1), (2, 1), (1, 0), (2, -1), (8, 1), (700, 1), (700, -1), (90, 0))
"""(scale, sign) of the symbols' values at each point; sign 0: by turns."""

_WHOLE = (*range(1, 21), 64, 81, 100, 125, 243, 256, 500, 777)


def points(names: frozenset[str], whole: bool = False, steps: bool = False, jumps: bool = False) -> list[dict[str, Any]]:
    """Values for the symbols at several points: positive, negative and mixed ones, small and large.

    `whole`: positive whole numbers alone, for sums up to n; `steps`: whole numbers too, for what jumps there; `jumps`:
    whole numbers alone, of both signs.
    """
    ordered = sorted(names)
    if not names:
        return [{}]
    out = []
    for number, (scale, sign) in enumerate(() if whole or jumps else _SAMPLES):
        values = {}
        for at, name in enumerate(ordered):
            noise = mp.mpf(crc32(f"{name} {number}".encode()) % 9973 + 300) / 3571
            values[name] = noise * scale * (sign or (-1) ** (at + number))
        out.append(values)
    if whole:
        out = [{name: mp.mpf(crc32(f"{name} {k}".encode()) % 11 + 2) for name in ordered} for k in range(4)]
    if steps and not whole:
        out += [{name: mp.mpf(-k - 3 * at) for at, name in enumerate(ordered)} for k in range(1, 9)]
    if steps:
        out += [{name: mp.mpf(k + 3 * at) for at, name in enumerate(ordered)} for k in _WHOLE]
    return out


def evaluate(tree: Tree, values: Mapping[str, Any]) -> Any:
    """The value as mpmath's number, at the precision that is set. Raises `TooLarge`, `Undefined` or what mpmath does."""
    kind = tree[0]
    if kind == "n":
        return mp.mpf(tree[1].numerator) / tree[1].denominator
    if kind == "s":
        return values[tree[1]]
    if kind == "c":
        return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1), "oo": mp.inf}[tree[1]] * 1
    if kind == "+":
        return evaluate(tree[1], values) + evaluate(tree[2], values)
    if kind == "neg":
        return -evaluate(tree[1], values)
    if kind == "*":
        return evaluate(tree[1], values) * evaluate(tree[2], values)
    if kind == "/":
        under = evaluate(tree[2], values)
        if under == 0:
            raise Undefined("a division by 0")
        return evaluate(tree[1], values) / under
    if kind == "^":
        base, exponent = evaluate(tree[1], values), evaluate(tree[2], values)
        return _kept_real(power(base, exponent), (base, exponent), values)
    return _RARE[kind](tree, values)


REAL = "only real values"
"""Among the values of the symbols: that a root or a logarithm that leaves the real numbers has no value."""


def _kept_real(result: Any, inputs: tuple[Any, ...], values: Mapping[str, Any]) -> Any:
    if REAL in values and mp.im(result) != 0 and all(mp.im(each) == 0 for each in inputs):
        raise Undefined("not a real number")
    return result


def power(base: Any, exponent: Any) -> Any:
    """base ** exponent, guarded."""
    if base == 0:
        if mp.re(exponent) < 0:
            raise Undefined("a division by 0")
        return mp.mpf(1) if exponent == 0 else mp.mpf(0)
    if mp.isinf(base) or mp.isinf(exponent):
        raise Undefined("a power of infinity")
    if abs(exponent) * (abs(mp.log(abs(base))) + 1) > 1e9:
        raise TooLarge("too large to be computed")
    return base**exponent


def _root(tree: Tree, values: Mapping[str, Any]) -> Any:
    degree, value = evaluate(tree[1], values), evaluate(tree[2], values)
    if mp.im(value) == 0 and mp.re(value) < 0 and degree == int(mp.re(degree)) and int(mp.re(degree)) % 2:
        return -power(-mp.re(value), 1 / degree)
    root = mp.sqrt(value) if degree == 2 else power(value, 1 / degree)
    return _kept_real(root, (degree, value), values)


def _factorial(tree: Tree, values: Mapping[str, Any]) -> Any:
    value = evaluate(tree[1], values)
    if abs(value) > 1e12:
        raise TooLarge("too large to be computed")
    return mp.fac2(value) if tree[0] == "!!" else mp.factorial(value)


def _log(tree: Tree, values: Mapping[str, Any]) -> Any:
    value, base = evaluate(tree[2], values), evaluate(tree[1], values)
    if value == 0 or base in (0, 1):
        raise Undefined("a logarithm of 0")
    return _kept_real(mp.log(value) / mp.log(base), (base, value), values)


def _function(tree: Tree, values: Mapping[str, Any]) -> Any:
    arguments = [evaluate(argument, values) for argument in tree[2]]
    rule = _NUMERIC.get(tree[1])
    if rule is None:
        return _unknown(tree[1], arguments)
    return rule(*arguments)


def _unknown(name: str, arguments: list[Any]) -> Any:
    """A value for a function that nobody defined: a smooth function of its arguments, another for each name."""
    total = mp.mpf(crc32(name.encode()) % 997 + 1) / 499
    for number, argument in enumerate(arguments):
        seed = crc32(f"{name} {number}".encode()) % 1009
        total += mp.cos(argument * (seed % 17 + 3) / 13 + number + 1) * (seed % 29 + 5) / 7
    return total


def _series(tree: Tree, values: Mapping[str, Any]) -> Any:
    kind, name, low, high, body = tree
    first, last = evaluate(low, values), evaluate(high, values)
    if first == -mp.inf or last == mp.inf:
        method = mp.nsum if kind == "sum" else mp.nprod
        with mp.workdps(20):
            return method(lambda k: evaluate(body, {**values, name: k}), [first, last])
    if first != int(first) or last != int(last) or last - first > _MAX_TERMS:
        raise Undefined("a sum over what is no whole number")
    terms = (evaluate(body, {**values, name: mp.mpf(k)}) for k in range(int(first), int(last) + 1))
    return mp.fsum(terms) if kind == "sum" else mp.fprod(terms)


def _integral(tree: Tree, values: Mapping[str, Any]) -> Any:
    _, name, low, high, body = tree
    with mp.workdps(20):
        ends = [evaluate(low, values), evaluate(high, values)]
        return mp.quad(lambda x: evaluate(body, {**values, name: x}), ends)


def _parity(rule: Callable[..., int]) -> Callable[..., Any]:
    """A function of whole numbers; of others, something symmetric."""

    def applied(*arguments: Any) -> Any:
        if all(mp.isint(argument) for argument in arguments):
            return mp.mpf(rule(*(int(argument) for argument in arguments)))
        return mp.fsum(mp.cos(argument * 3 + 1) for argument in arguments) + crc32(rule.__name__.encode())

    return applied


_RARE: Mapping[str, Callable[[Tree, Mapping[str, Any]], Any]] = {
    "root": _root, "!": _factorial, "!!": _factorial, "log": _log, "f": _function, "sum": _series, "prod": _series,
    "int": _integral,
    "%": lambda tree, values: evaluate(tree[1], values) / 100,
    "deg": lambda tree, values: evaluate(tree[1], values) * mp.pi / 180,
    "call": lambda tree, values: _unknown(tree[1], [evaluate(argument, values) for argument in tree[2]]),
}  # fmt: skip
_NUMERIC: Mapping[str, Callable[..., Any]] = {
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc, "arcsin": mp.asin,
    "arccos": mp.acos, "arctan": mp.atan, "arccot": mp.acot, "arcsec": mp.asec, "arccsc": mp.acsc, "sinh": mp.sinh,
    "cosh": mp.cosh, "tanh": mp.tanh, "coth": mp.coth, "arsinh": mp.asinh, "arcosh": mp.acosh, "artanh": mp.atanh,
    "exp": lambda x: power(mp.e, x), "abs": abs, "sqrt": mp.sqrt, "floor": mp.floor, "ceil": mp.ceil,
    "cis": mp.expj, "cup": lambda a, b: a + b + 17, "cap": lambda a, b: a * b * mp.mpf("1.3"), "sgn": mp.sign, "Re": mp.re, "Im": mp.im, "arg": mp.arg,
    "max": lambda *v: max(v, key=mp.re), "min": lambda *v: min(v, key=mp.re),
    "binom": lambda n, k: mp.binomial(n, k),
    "gcd": _parity(math.gcd), "lcm": _parity(math.lcm),
}  # fmt: skip


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
    names = symbols(one) | symbols(other)
    if names and names <= _COUNTS and _same_at_points(one, other, names, kinds | {"whole"}, {}):
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


def _same_at_points(one: Tree, other: Tree, names: frozenset[str], kinds: frozenset[str], fixed: dict[str, Any]) -> bool:
    loose = bool(kinds & {"int"}) or bool(kinds & {"sum", "prod"}) and "oo" in kinds
    compared = 0
    one_abs = ("abs" in heads(one)) != ("abs" in heads(other))
    with mp.workdps(DIGITS):
        for values in points(names - fixed.keys(), bool(kinds & _SUMMED), bool(kinds & _STEPPING), "whole" in kinds):
            positive = all(value > 0 for value in values.values())
            real = not kinds & {"i", "cis"} and not one_abs
            here = values | fixed | ({REAL: True} if real and not positive else {})
            try:
                first, second = evaluate(one, here), evaluate(other, here)
            except TooLarge:
                if not names:
                    raise
                continue
            except _FAILURES:
                continue
            if real and _leaves_the_reals(first, second, "log" in kinds or not positive):
                continue
            if not close(first, second, lambda: (evaluate(one, here), evaluate(other, here)), loose):  # noqa: B023
                return False
            if not names and abs(first) > mp.mpf(10) ** 35 and _terms_left(one, other):
                return False
            compared += 1
    return compared > 0


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
    tolerance = mp.mpf(10) ** (-14 if loose else 10 - DIGITS)
    if difference <= tolerance * size:
        return True if loose else _closer(again, size)
    if loose:
        return bool(difference <= tolerance)
    if difference > tolerance * 10**10:
        return False
    with mp.workdps(2 * DIGITS + 20):
        first, second = again()
        return bool(abs(first - second) <= mp.mpf(10) ** (-2 * DIGITS))


def _closer(again: Callable[[], tuple[Any, Any]], size: Any) -> bool:
    """Whether two values that agree still do with twice the digits."""
    with mp.workdps(2 * DIGITS + 20):
        first, second = again()
        return bool(abs(first - second) <= mp.mpf(10) ** (-2 * DIGITS) * size)
