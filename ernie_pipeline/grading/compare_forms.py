r"""Comparing what has nothing nested in it: regions, words, congruences, ratios, times."""

from fractions import Fraction

from ernie_pipeline.grading.conversions import in_unit_vectors
from ernie_pipeline.grading.exact import exact
from ernie_pipeline.grading.leaves import leaf_differs
from ernie_pipeline.grading.regions import REALS, region_of, union
from ernie_pipeline.grading.structure import (
    Bracket,
    Clock,
    Congruence,
    Interval,
    Items,
    Leaf,
    NumberSet,
    Ratio,
    Region,
    Value,
    Words,
)
from ernie_pipeline.grading.tree import Tree, symbols
from ernie_pipeline.grading.values import same_value

_VAGUE = frozenset(["the", "of", "is", "a", "total", "value", "number"])

OTHER = "something else is asked"


def fitting_labels(one: str, other: str) -> bool:
    """Whether a label in words may stand for the other name: for any symbol, and for the same words."""
    labels = [set(name.split()[1:]) - _VAGUE for name in (one, other) if name.startswith("text ")]
    return len(labels) == 1 or (len(labels) == 2 and labels[0] == labels[1])


def same_regions(reference: Value, answer: Value) -> str | None:
    one, other = region_of(reference), region_of(answer)
    if one is None or other is None:
        return OTHER
    if one.name and other.name and one.name != other.name:
        return "it is about another symbol"
    if len(one.intervals) != len(other.intervals):
        return "other intervals"
    for first, second in zip(one.intervals, other.intervals, strict=True):
        found = _interval(first, second)
        if found is not None:
            return found
    return None


def _interval(one: Interval, other: Interval) -> str | None:
    for side, first, second in (("left", one.low, other.low), ("right", one.high, other.high)):
        if not same_value(first, second):
            return f"the {side} end differs"
    for side, end, first_closed, second_closed in (
        ("left", one.low, one.low_closed, other.low_closed),
        ("right", one.high, one.high_closed, other.high_closed),
    ):
        if first_closed != second_closed and ("c", "oo") not in (end, end[-1]):
            return f"the {side} bracket differs"
    return None


def same_words(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Words) and isinstance(answer, Words):
        return None if reference.words == answer.words else "other words"
    words, other = (reference, answer) if isinstance(reference, Words) else (answer, reference)
    assert isinstance(words, Words)
    if words.words in (("infinity",), ("infinite",)) and isinstance(other, Leaf):
        return None if other.tree == ("c", "oo") else "infinity is not this"
    if isinstance(other, Leaf) and words.letters.isalpha() and words.letters.islower() and len(words.words) == 1:
        product: Tree = ("n", Fraction(1))
        for letter in words.letters:
            product = ("*", product, ("s", letter))
        return None if len(words.letters) < 4 and same_value(product, other.tree) else "words are no value"
    return "words are no value"


def same_congruences(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Congruence) and isinstance(answer, Congruence):
        if reference.left and answer.left and reference.left != answer.left:
            return "it is about another symbol"
        if not same_value(reference.modulus, answer.modulus):
            return "the modulus differs"
        modulus = exact(reference.modulus)
        sets = [sorted(_residues(each, modulus), key=str) for each in (reference, answer)]
        return None if sets[0] == sets[1] else "the residue differs"
    congruence, other = (reference, answer) if isinstance(reference, Congruence) else (answer, reference)
    assert isinstance(congruence, Congruence)
    if isinstance(other, Leaf) and len(congruence.residues) == 1 and not congruence.left:
        residue, modulus = exact(congruence.residues[0]), exact(congruence.modulus)
        if residue is not None and modulus and not 0 <= residue < modulus:
            return leaf_differs(other, Leaf(("n", residue % modulus)))  # 7 mod 3 is 1
        if congruence is answer:
            return leaf_differs(other, Leaf(congruence.residues[0]))
    return "a congruence is no value"


def _residues(congruence: Congruence, modulus: Fraction | None) -> set[object]:
    found: set[object] = set()
    for tree in congruence.residues:
        value = exact(tree)
        found.add(value % modulus if value is not None and modulus else tree)
    return found


def same_ratios(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Ratio) and isinstance(answer, Ratio):
        if len(reference.parts) != len(answer.parts):
            return "the ratio has other parts"
        one, other = _trees(reference), _trees(answer)
        same = all(same_value(("*", a, other[0]), ("*", b, one[0])) for a, b in zip(one[1:], other[1:], strict=True))
        return None if same else "the ratio differs"
    ratio, value = (reference, answer) if isinstance(reference, Ratio) else (answer, reference)
    assert isinstance(ratio, Ratio)
    trees = _trees(ratio)
    if isinstance(value, Leaf) and value.tree[0] in ("/", "neg") and len(trees) == 2 and value.unit is None:
        return None if same_value(("/", trees[0], trees[1]), value.tree) else "the ratio differs"
    return "a ratio is no such value"


def _trees(ratio: Ratio) -> list[Tree]:
    return [part.tree for part in ratio.parts if isinstance(part, Leaf)]


def same_clocks(reference: Value, answer: Value) -> str | None:
    if not isinstance(reference, Clock) or not isinstance(answer, Clock):
        return "a time of day is no such value"
    if (reference.half and answer.half) or (not reference.half and not answer.half):
        return None if reference.minutes == answer.minutes else "the time differs"
    return None if (reference.minutes - answer.minutes) % 720 == 0 else "the time differs"


def list_and_region(items: Items, region: Region) -> str | None:
    if all(isinstance(item, Region | Bracket) for item in items.items):
        whole = union(list(items.items))
        if isinstance(whole, Region) and len(whole.intervals) == len(items.items):
            return same_regions(region, whole)
    if items.kind == "set":
        return "a finite set is no interval"
    return OTHER


def pair(one: list[Value], other: list[Value], first: bool) -> tuple[list[Value], list[Value]]:
    return (one, other) if first else (other, one)


def bracket_and_leaf(reference: Value, answer: Value) -> str | None:
    pair = [in_unit_vectors(value) if isinstance(value, Bracket) else value for value in (reference, answer)]
    if not all(isinstance(value, Leaf) for value in pair):
        return OTHER
    one, other = pair
    named = any(
        isinstance(value, Leaf) and any("hat " in name for name in symbols(value.tree)) for value in (reference, answer)
    )
    return same_leaves(one, other) if named and one and other else OTHER


def same_leaves(reference: Value, answer: Value) -> str | None:
    assert isinstance(reference, Leaf)
    assert isinstance(answer, Leaf)
    return leaf_differs(reference, answer)


def region_rule(reference: Value, answer: Value) -> str | None:
    if REALS in (reference, answer) and isinstance(answer if reference == REALS else reference, NumberSet):
        return "another set of numbers"
    return same_regions(reference, answer)
