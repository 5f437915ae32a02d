r"""Sets of numbers by name: \mathbb{R}^+, "all positive integers". The real ones are regions of the line."""

import re
from collections.abc import Sequence
from fractions import Fraction

from ernie_pipeline.grading.regions import INFINITY, REALS
from ernie_pipeline.grading.structure import Interval, NumberSet, Region, Value
from ernie_pipeline.grading.tree import Tree

_ZERO: Tree = ("n", Fraction(0))
_BELOW = Interval(("neg", INFINITY), _ZERO, False, False)
_ABOVE = Interval(_ZERO, INFINITY, False, False)
_REAL = {
    "": REALS,
    "+": Region(None, (_ABOVE,)),
    "-": Region(None, (_BELOW,)),
    "0+": Region(None, (Interval(_ZERO, INFINITY, True, False),)),
    "0-": Region(None, (Interval(("neg", INFINITY), _ZERO, False, True),)),
    "*": Region(None, (_BELOW, _ABOVE)),
}
_SIGNS = {"positive": "+", "negative": "-", "nonnegative": "0+", "nonpositive": "0-", "nonzero": "*"}
_TAILS = {
    "^+": "+", "_+": "+", "_>0": "+", "^{>0}": "+", "^-": "-", "_-": "-", "_<0": "-", "_ge0": "0+", "^ge0": "0+",
    "_le0": "0-", "^*": "*", "_ne0": "*", "^times": "*", "_ge1": "+",
}  # fmt: skip
_NAMES = re.compile(
    r"(?:set of )?(?:all |any )?(?:set of )?(?:(positive|negative|non ?negative|non ?positive|non ?zero) )?"
    r"(real|integer|whole|rational|natural|complex)(?: number)?s?"
)


def by_letter(letter: str, tail: str) -> Value:
    """R, Z, Q, N or C with what follows it: "^+", "_>0"."""
    if tail and tail not in _TAILS:
        return NumberSet(letter + tail)
    return _named(letter, _TAILS.get(tail, ""))


def by_words(words: Sequence[str]) -> Value | None:
    """The set that words name; None for other words."""
    found = _NAMES.fullmatch(" ".join(words))
    if found is None or (len(words) == 1 and words[0] in ("real", "whole", "rational", "natural", "complex")):
        return None
    letter = {"real": "R", "integer": "Z", "whole": "W", "rational": "Q", "natural": "N", "complex": "C"}[found[2]]
    return _named(letter, _SIGNS.get((found[1] or "").replace(" ", ""), ""))


def _named(letter: str, sign: str) -> Value:
    if letter == "R":
        return _REAL[sign]
    if letter == "N" and sign in ("+", "*"):
        letter, sign = "Z", "+"
    return NumberSet(letter + sign)
