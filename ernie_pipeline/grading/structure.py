r"""What an answer can be: the typed structure that the reader (reader.py) makes of tokens and compare.py compares."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Union

from ernie_pipeline.grading.tree import Tree
from ernie_pipeline.grading.units import Unit


@dataclass(frozen=True)
class Leaf:
    """One expression, perhaps with a unit ("%" and "deg" among them).

    `places`: of a plain decimal number. `approximate`: it says so. `then`: what it is rounded to ("2\\pi \\approx
    6.28").
    """

    tree: Tree
    unit: Unit | Literal["%"] | None = None
    places: int | None = None
    approximate: bool = False
    then: Union["Leaf", None] = None


@dataclass(frozen=True)
class Words:
    """Running words, in lower case, without articles; `letters`: as they were written."""

    words: tuple[str, ...]
    letters: str = ""


@dataclass(frozen=True)
class Phrase:
    """Words and mathematics by turns: "3 if n is even"; "2 hours 30 minutes" (two quantities)."""

    parts: tuple["Value", ...]


@dataclass(frozen=True)
class Items:
    """`kind`: a list or a set, without order; a sequence (with dots), in order. `joiner`: ",", "and" or "or"."""

    kind: Literal["list", "set", "sequence"]
    items: tuple["Value", ...]
    joiner: str = ","


@dataclass(frozen=True)
class Dots:
    """The dots of a sequence."""


@dataclass(frozen=True)
class Bracket:
    """Things in order between brackets: a point, a vector ("<"), an interval."""

    opening: str
    closing: str
    items: tuple["Value", ...]


@dataclass(frozen=True)
class Interval:
    """Ends, and whether they belong to it; a single point is closed and has equal ends."""

    low: Tree
    high: Tree
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True)
class Region:
    """A union of intervals, for the symbol `name` where it was written as an inequality or with "in"."""

    name: str | None
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Relation:
    """left `operator` right: "=", "<", "<=", "!=", "in"."""

    operator: str
    left: "Value"
    right: "Value"


@dataclass(frozen=True)
class Named:
    """A value with its name: x = 5, f(x) = x^2 (`bound`: x), Total = 5. `left`: the name as an expression, if it is."""

    name: str
    value: "Value"
    bound: tuple[str, ...] = ()
    left: Tree | None = None


@dataclass(frozen=True)
class Matrix:
    """Rows of cells; `kind`: "matrix", or "det" for one between bars."""

    kind: str
    rows: tuple[tuple["Value", ...], ...]


@dataclass(frozen=True)
class Cases:
    """Rows of a piecewise definition: value, condition."""

    rows: tuple[tuple["Value", ...], ...]


@dataclass(frozen=True)
class Congruence:
    """left = residue (mod modulus); `left` is "" where only the residue is given."""

    left: str
    residues: tuple[Tree, ...]
    modulus: Tree


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio:
    """a : b : c."""

    parts: tuple["Value", ...]


@dataclass(frozen=True)
class Clock:
    """A time of day: minutes from midnight, or from either twelve where `half` is ""."""

    minutes: Fraction
    half: str


@dataclass(frozen=True)
class Choice:
    """A lettered option with what it says: (B) 5."""

    letter: str
    value: "Value"


@dataclass(frozen=True)
class Builder:
    """{element | condition}."""

    element: "Value"
    condition: "Value"


@dataclass(frozen=True)
class NumberSet:
    """R, Z, Q, N or C, perhaps with a sign as in Z^+."""

    name: str


@dataclass(frozen=True)
class Unread:
    """What no grammar has, as its tokens; equal only to the same ones."""

    text: str


Value = (
    Leaf | Words | Phrase | Items | Dots | Bracket | Region | Relation | Named | Matrix | Cases | Congruence | Based
    | Ratio | Clock | Choice | Builder | NumberSet | Unread
)  # fmt: skip
