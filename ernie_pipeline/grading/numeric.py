"""Values of expressions at points, by mpmath, at the precision that is set."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any
from zlib import crc32

from mpmath import mp

from ernie_pipeline.grading.exact import TooLarge, Undefined
from ernie_pipeline.grading.tree import Tree

DIGITS = 50


_MAX_TERMS = 3000


FAILURES = (ValueError, ArithmeticError, TypeError, KeyError, mp.NoConvergence)


_SAMPLES = ((1, 1), (2, 1), (1, 0), (2, -1), (8, 1), (700, 1), (700, -1), (90, 0))
"""(scale, sign) of the symbols' values at each point; sign 0: by turns."""


_WHOLE = (*range(1, 21), 64, 81, 100, 125, 243, 256, 500, 777)


def near(numbers: frozenset[Fraction]) -> tuple[int, ...]:
    """The whole numbers beside those that stand in an expression: where its steps are, if it has any."""
    small = sorted(int(number) for number in numbers if number.denominator == 1 and 1 < abs(number) < 10_000)[:8]
    return tuple(dict.fromkeys(each * number + step for number in small for each in (1, 2) for step in (-1, 0, 1)))


def points(
    names: frozenset[str], whole: bool = False, steps: bool = False, jumps: bool = False, beside: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
    """Values for the symbols at several points: positive, negative and mixed ones, small and large.

    `whole`: positive whole numbers alone, for sums up to n; `steps`: whole numbers too, for what jumps there; `jumps`:
    whole numbers alone, of both signs; `beside`: more of them.
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
        out += [{name: mp.mpf(k + 3 * at) for at, name in enumerate(ordered)} for k in (*_WHOLE, *beside)]
    return out


def evaluate(tree: Tree, values: Mapping[str, Any]) -> Any:
    """The value as mpmath's number, at the precision that is set. Raises `TooLarge` or one of `FAILURES`."""
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


def _limit(tree: Tree, values: Mapping[str, Any]) -> Any:
    _, name, to, body = tree
    with mp.workdps(30):
        return mp.limit(lambda x: evaluate(body, {**values, name: x}), evaluate(to, values))


def _parity(rule: Callable[..., int]) -> Callable[..., Any]:
    """A function of whole numbers; of others, something symmetric."""

    def applied(*arguments: Any) -> Any:
        if all(mp.isint(argument) for argument in arguments):
            return mp.mpf(rule(*(int(argument) for argument in arguments)))
        return mp.fsum(mp.cos(argument * 3 + 1) for argument in arguments) + crc32(rule.__name__.encode())

    return applied


_RARE: Mapping[str, Callable[[Tree, Mapping[str, Any]], Any]] = {
    "root": _root, "!": _factorial, "!!": _factorial, "log": _log, "f": _function, "sum": _series, "prod": _series,
    "int": _integral, "lim": _limit,
    "%": lambda tree, values: evaluate(tree[1], values) / 100,
    "deg": lambda tree, values: evaluate(tree[1], values) * mp.pi / 180,
    "call": lambda tree, values: _unknown(tree[1], [evaluate(argument, values) for argument in tree[2]]),
}  # fmt: skip


_NUMERIC: Mapping[str, Callable[..., Any]] = {
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc, "arcsin": mp.asin,
    "arccos": mp.acos, "arctan": mp.atan, "arccot": mp.acot, "arcsec": mp.asec, "arccsc": mp.acsc, "sinh": mp.sinh,
    "cosh": mp.cosh, "tanh": mp.tanh, "coth": mp.coth, "arsinh": mp.asinh, "arcosh": mp.acosh, "artanh": mp.atanh,
    "Gamma": mp.gamma, "exp": lambda x: power(mp.e, x), "abs": abs, "sqrt": mp.sqrt, "floor": mp.floor, "ceil": mp.ceil,
    "cis": mp.expj, "cup": lambda a, b: a + b + 17, "cap": lambda a, b: a * b * mp.mpf("1.3"), "sgn": mp.sign,
    "Re": mp.re, "Im": mp.im, "arg": mp.arg,
    "max": lambda *v: max(v, key=mp.re), "min": lambda *v: min(v, key=mp.re),
    "binom": lambda n, k: mp.binomial(n, k),
    "gcd": _parity(math.gcd), "lcm": _parity(math.lcm),
}  # fmt: skip
