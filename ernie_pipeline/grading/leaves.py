r"""Single values: numbers and formulas with their units, and when a decimal may stand for an exact value."""

from fractions import Fraction

from mpmath import mp

from ernie_pipeline.grading.exact import Undefined, exact
from ernie_pipeline.grading.numeric import evaluate
from ernie_pipeline.grading.structure import Items, Leaf, Phrase, Value
from ernie_pipeline.grading.tree import Tree, symbols
from ernie_pipeline.grading.units import Unit, agree
from ernie_pipeline.grading.values import same_value

PLACES_FOR_EXACT = 6
"""Decimal places, correctly rounded, from which on an answer may stand for an exact reference: 0.333333 for 1/3."""

NOISE_DIGITS = 15
"""Decimal places from which on an answer is taken for a float, whose last digits are noise: 0.30000000000000004."""

_DEGREES = (("angle", 1),)


def leaf_differs(reference: Leaf, answer: Leaf) -> str | None:
    """The difference between two values with their units, or None."""
    one, other = reference.unit, answer.unit
    if one is None and other is None:
        return None if _equal(reference, answer) else "the value differs"
    if "%" in (one, other):
        return _percent(reference, answer)
    if isinstance(one, Unit) and isinstance(other, Unit):
        factor = agree(other, one)
        if {one.dimensions, other.dimensions} == {_DEGREES, (("radian", 1),)}:
            return None if same_value(_in_radians(reference), _in_radians(answer)) else "the value differs"
        if factor is None:
            return "the unit differs"
        if factor == 1:
            return None if _equal(reference, answer) else "the value differs"
        return None if same_value(reference.tree, ("*", answer.tree, ("n", factor))) else "the value differs"
    if _equal(reference, answer):
        return None
    turned = [_in_radians(leaf) for leaf in (reference, answer)]
    return None if same_value(turned[0], turned[1]) else "the value differs"


def _in_radians(leaf: Leaf) -> Tree:
    degrees = isinstance(leaf.unit, Unit) and leaf.unit.dimensions == _DEGREES
    return ("deg", leaf.tree) if degrees else leaf.tree


def _percent(reference: Leaf, answer: Leaf) -> str | None:
    """50 % is 1/2; where one side has no sign, a number above 1 may be the percentage itself: 50 for 50 %."""
    if reference.unit == answer.unit:
        return None if _equal(reference, answer) else "the percentage differs"
    if reference.unit is not None and answer.unit is not None:
        return "the unit differs"
    shares = [("%", leaf.tree) if leaf.unit == "%" else leaf.tree for leaf in (reference, answer)]
    if same_value(shares[0], shares[1]):
        return None
    value = exact(answer.tree)
    if value is not None and abs(value) > 1 and _equal(reference, answer):
        return None
    return "the percentage differs"


def _equal(reference: Leaf, answer: Leaf) -> bool:
    if same_value(reference.tree, answer.tree):
        return True
    if symbols(reference.tree) or symbols(answer.tree):
        return False
    return _rounded(reference, answer) or _noise(reference, answer)


def _rounded(reference: Leaf, answer: Leaf) -> bool:
    """Whether one is the other, rounded, where that is allowed."""
    if reference.approximate and reference.places is not None:
        return _rounds(answer.tree, reference.tree, reference.places)
    if answer.places is not None and reference.places is None:
        return answer.places >= PLACES_FOR_EXACT and _rounds(reference.tree, answer.tree, answer.places)
    if reference.places is not None and answer.places is None and not answer.approximate:
        wanted = 2 if exact(answer.tree) is None else 4
        value = exact(reference.tree) or Fraction(0)
        digits = len(str(abs(value.numerator * 10**reference.places // value.denominator)))
        return reference.places >= wanted and digits >= 3 and _rounds(answer.tree, reference.tree, reference.places)
    return False


def _rounds(value: Tree, rounded: Tree, places: int) -> bool:
    try:
        exactly = exact(value)
        if exactly is not None and _terminates(exactly) and abs(exactly.denominator) <= 10**places:
            return False  # it could have been said exactly
        with mp.workdps(60 + places):
            difference = abs(evaluate(value, {}) - evaluate(rounded, {}))
            return bool(difference <= mp.mpf(10) ** -places / 2)
    except (Undefined, ArithmeticError, KeyError, TypeError):
        return False


def _terminates(value: Fraction) -> bool:
    under = value.denominator
    for prime in (2, 5):
        while under % prime == 0:
            under //= prime
    return under == 1


def _noise(reference: Leaf, answer: Leaf) -> bool:
    """Whether an answer printed by a float is the reference, but for the float's last digits."""
    if answer.places is None or answer.places < NOISE_DIGITS - 3:
        return False
    one, other = exact(reference.tree), exact(answer.tree)
    if one is None or other is None or not one:
        return False
    long = len(str(abs(other.numerator))) >= NOISE_DIGITS - 1 or answer.places >= NOISE_DIGITS
    return long and abs(one - other) <= abs(one) / 10**14


def total(value: Value) -> Leaf | None:
    """What quantities of one kind sum to: 2 hours 30 minutes; None where they are of several kinds, or have no unit."""
    if isinstance(value, Leaf):
        return value if isinstance(value.unit, Unit) else None
    parts = value.parts if isinstance(value, Phrase) else value.items if isinstance(value, Items) else ()
    if isinstance(value, Items) and value.joiner != "and":
        return None
    first = parts[0] if parts else None
    if not isinstance(first, Leaf) or not isinstance(first.unit, Unit) or first.unit.noun:
        return None
    tree, smaller = first.tree, first.unit.factor
    for part in parts[1:]:
        if not isinstance(part, Leaf) or not isinstance(part.unit, Unit):
            return None
        factor = agree(part.unit, first.unit)
        if factor is None or part.unit.noun or part.unit.factor >= smaller:
            return None
        tree, smaller = ("+", tree, ("*", part.tree, ("n", factor))), part.unit.factor
    return Leaf(tree, first.unit)
