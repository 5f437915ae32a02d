"""Families over the whole numbers: pi/6 + k pi is 7 pi/6 + k pi, and 4k + 1 is 4k - 3."""

from typing import Any, NamedTuple

from mpmath import mp

from ernie_pipeline.grading.domains import domain_name, rename_value
from ernie_pipeline.grading.numeric import DIGITS, FAILURES, evaluate, points
from ernie_pipeline.grading.structure import Bracket, Builder, Items, Leaf, Named, NumberSet, Relation, Value
from ernie_pipeline.grading.tree import Tree, heads, symbols

_COUNTED = frozenset("nmxpq")
PARAMETERS = frozenset("kn")
"""Letters of the whole number in a family with pi that does not say so."""


def same_family(reference: Value, answer: Value) -> bool:
    """Whether two whole answers run through the same numbers, or points, while one parameter runs through Z.

    The parameter is the symbol that a part "k in Z" names, on both sides or on one. Where nothing names it, it is k or
    n beside pi or degrees, or k in what n, m, x, p or q is equal to (m = 4k + 1), and may be shifted, not negated.
    """
    one, other = _family(reference), _family(answer)
    if one is None or other is None or not (one.whole and other.whole):
        return False
    parameter = one.parameter or other.parameter
    if one.parameter and other.parameter and one.parameter != other.parameter:
        parts = [rename_value(part, other.parameter, one.parameter) for part in other.parts]
        other = Family(parts, one.parameter, True)
    first, second = _trees(one.parts), _trees(other.parts)
    if not first or len(first) != len(second) or _names(one.parts) != _names(other.parts):
        return False
    said = parameter is not None
    if parameter is None:
        parameter = _unsaid_parameter(one.parts, first, second)
    if parameter is None or any(parameter in name for name in _names(one.parts)):
        return False
    shared = [set().union(*map(symbols, trees)) for trees in (first, second)]
    return parameter in shared[0] & shared[1] and _shifted(first, second, parameter, said)


class Family(NamedTuple):
    """What depends on the parameter, its name where it is said, and whether it may be every whole number."""

    parts: list[Value]
    parameter: str | None
    whole: bool


def _family(value: Value) -> Family | None:
    items: tuple[Value, ...] = (value,)
    if isinstance(value, Builder):
        items = (value.element, *(value.condition.items if isinstance(value.condition, Items) else (value.condition,)))
    elif isinstance(value, Items) and value.kind == "list":
        items = value.items
    domains = [item for item in items if domain_name(item) is not None]
    if len(domains) > 1:
        return None
    whole = all(isinstance(item, Relation) and item.right == NumberSet("Z") for item in domains)
    parts = [item for item in items if item not in domains]
    return Family(parts, domain_name(domains[0]) if domains else None, whole)


def _names(parts: list[Value]) -> list[str]:
    return sorted(part.name for part in parts if isinstance(part, Named))


def _trees(parts: list[Value]) -> list[Tree]:
    """Of one value or point, or of named values in the order of their names; none of anything else."""
    if any(isinstance(part, Named) and (part.bound or len(part.name) > 1) for part in parts):
        return []
    if len(parts) > 1:
        named = [part for part in parts if isinstance(part, Named)]
        values = [part.value for part in sorted(named, key=lambda each: each.name)]
        values = values if len({part.name for part in named}) == len(parts) else []
    else:
        values = [part.value if isinstance(part, Named) else part for part in parts]
        if values and isinstance(values[0], Bracket) and values[0].opening + values[0].closing == "()":
            values = list(values[0].items)
    trees = [value.tree for value in values if isinstance(value, Leaf)]
    return trees if len(trees) == len(values) else []


def _unsaid_parameter(parts: list[Value], one: list[Tree], other: list[Tree]) -> str | None:
    if len(one) > 1 or len(parts) > 1:
        return None
    shared = symbols(one[0]) & symbols(other[0])
    circular = {"pi", "deg"} & heads(one[0]) & heads(other[0])
    allowed = (shared & PARAMETERS) if circular else (shared & {"k"}) if set(_names(parts)) & _COUNTED else frozenset()
    return next(iter(allowed)) if len(allowed) == 1 and len(shared) == 1 else None


def _shifted(one: list[Tree], other: list[Tree], parameter: str, negated: bool) -> bool:
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
            found = [shift for shift in shifts if shift != "any"]
            if len(found) != 1 or (found[0][0] == -1 and not negated):
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
