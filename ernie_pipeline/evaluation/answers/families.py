"""Families over the whole numbers: pi/6 + k pi is 7 pi/6 + k pi, and 4k + 1 is 4k - 3."""

from mpmath import mp

from ernie_pipeline.evaluation.answers.numeric import DIGITS, FAILURES, evaluate, points
from ernie_pipeline.evaluation.answers.structure import Leaf, Named, Value
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
    if not isinstance(reference, Leaf) or not isinstance(answer, Leaf):
        return False
    one, other = reference.tree, answer.tree
    if parameter is None:
        shared = symbols(one) & symbols(other)
        circular = "pi" in heads(one) & heads(other)
        allowed = (shared & PARAMETERS) if circular else (shared & {"k"}) if named else frozenset()
        if len(allowed) != 1 or len(shared) > 1:
            return False
        parameter = next(iter(allowed))
    return parameter in symbols(one) & symbols(other) and _shifted(one, other, parameter)


def _shifted(one: Tree, other: Tree, parameter: str) -> bool:
    """Whether both are linear in the parameter, with steps of one size, and apart by whole steps."""
    rest = (symbols(one) | symbols(other)) - {parameter}
    small = mp.mpf(10) ** (15 - DIGITS)
    with mp.workdps(DIGITS):
        for values in points(rest):
            try:
                first, second = (
                    [evaluate(tree, {**values, parameter: mp.mpf(k)}) for k in range(4)] for tree in (one, other)
                )
            except FAILURES:
                return False
            steps = [each[1] - each[0] for each in (first, second)]
            for each, step in zip((first, second), steps, strict=True):
                if any(abs(each[k + 1] - each[k] - step) > small for k in range(3)):
                    return False
            if steps[0] == 0 or abs(abs(steps[0]) - abs(steps[1])) > small:
                return False
            shift = (second[0] - first[0]) / steps[0]
            if abs(shift - mp.nint(mp.re(shift))) > small:
                return False
    return True
