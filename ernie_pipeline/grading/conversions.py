r"""One kind of answer as another: a point in unit vectors, or as rows; C(9, 4) as a number."""

from collections.abc import Sequence
from fractions import Fraction

from ernie_pipeline.grading.structure import Bracket, Items, Leaf, Matrix, Named, Value, Words
from ernie_pipeline.grading.tree import Tree
from ernie_pipeline.grading.units import Unit


def with_empty(other: Value) -> str | None:
    if isinstance(other, Items):
        return None if not other.items else "the empty set is not this"
    words = other.words if isinstance(other, Words) else ()
    return None if words in (("no", "solution"), ("none",), ("empty",)) else "the empty set is not this"


def is_money(leaf: Leaf) -> bool:
    return isinstance(leaf.unit, Unit) and leaf.unit.dimensions == (("dollar", 1),)


def binomial(named: Named) -> Leaf | None:
    """C(9, 4) as a number; beside other points it is a point C."""
    value = named.value
    if named.name != "C" or not isinstance(value, Bracket) or len(value.items) != 2:
        return None
    trees = tuple(item.tree for item in value.items if isinstance(item, Leaf))
    return Leaf(("f", "binom", trees)) if len(trees) == 2 else None


def in_unit_vectors(bracket: Bracket) -> Leaf | None:
    """(2, -3) as 2i - 3j."""
    if bracket.opening not in "(<" or not 2 <= len(bracket.items) <= 3:
        return None
    total: Tree = ("n", Fraction(0))
    for letter, item in zip("ijk", bracket.items, strict=False):
        if not isinstance(item, Leaf):
            return None
        total = ("+", total, ("*", item.tree, ("s", f"hat {letter}")))
    return Leaf(total)


def rows_of(value: Value) -> Sequence[Sequence[Value]] | None:
    """Of a matrix; of a point or vector, where the other is a single row or column."""
    if isinstance(value, Matrix):
        return value.rows
    return (value.items,) if isinstance(value, Bracket) and value.opening in "(<[" else None
