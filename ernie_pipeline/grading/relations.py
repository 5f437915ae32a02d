r"""Relations: equations, named values, inequalities as regions of the real line, membership."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from mpmath import mp

from ernie_pipeline.grading.expression import parse_expression
from ernie_pipeline.grading.numeric import evaluate
from ernie_pipeline.grading.regions import INFINITY, REALS, absolute, region_of
from ernie_pipeline.grading.structure import (
    Bracket,
    Interval,
    Items,
    Leaf,
    Named,
    NumberSet,
    Region,
    Relation,
    Unread,
    Value,
    Words,
)
from ernie_pipeline.grading.tokens import Token, Unreadable
from ernie_pipeline.grading.tree import Tree, symbols
from ernie_pipeline.grading.values import same_value
from ernie_pipeline.grading.word_set import word_set

_UNKNOWNS = word_set("x y z t r u v X Y")
"""Symbols that an equation of a curve has; a relation of others to a number tells the value of an expression."""


_EVENTS = word_set("= < > le ge ne cup cap | mid")
"""Signs in brackets behind a letter that name a probability or a count: P(X = 2), n(A cup B)."""


Name = tuple[str, tuple[str, ...], Tree | None]
"""The name of a value, the symbols that it binds, and the name as an expression, if it is one."""

Reader = Callable[[list[Token]], Value]


def read_relation(tokens: list[Token], read: Reader, parts: tuple[list[list[Token]], list[str]]) -> Value | None:
    """What a chain of relations says; None where there is none."""
    sides, signs = parts
    if not signs:
        return None
    unread = Unread(" ".join(token.text for token in tokens if token.text not in "{}"))
    if signs == ["~"] and not sides[0] and sides[1]:
        value = read(sides[1])
        return Leaf(value.tree, value.unit, value.places, True) if isinstance(value, Leaf) else unread
    if not all(sides) or {"to", "notin", "equiv"} & set(signs):
        return unread
    if set(signs) <= {"=", "~"}:
        return _equation(sides, signs, read) or unread
    if signs == ["in"]:
        return _membership(sides, read)
    if signs == ["=", "in"]:
        return unread
    return _inequality(sides, signs, read) or unread


def simple_name(side: Sequence[Token]) -> Name | None:
    """(name, bound symbols, tree) of what can be the name of a value: x, x_1, f(x), AB, |AB|, angle A, "Total"."""
    texts = [token.text for token in side]
    if set(texts[1::2]) == {":"} and all(token.kind in ("let", "run") for token in side[::2]):
        return ("".join(texts), (), None)
    if texts[0] == "(" and "circ" in texts and texts[-1] == ")":
        return (" ".join(texts), (), None)
    if texts[0] == texts[-1] == "norm" and len(side) > 2:
        return (" ".join(texts), (), None)
    if side[0].kind == "word" and all(t.kind in ("word", "let", "run", "num") or t.text in "-'" for t in side):
        return ("text " + " ".join(texts).lower(), (), None)
    if texts[0] in ("angle", "triangle") or (len(side) == 1 and side[0].kind == "run" and not texts[0].islower()):
        return (" ".join(texts), (), _tree(side))
    if texts[0] in ("|", "vert") and len(side) == 3 and side[1].kind in ("run", "let"):
        return (side[1].text if side[1].text.isupper() else f"|{side[1].text}|", (), None)
    if texts[0] == "[" and texts[-1] == "]" and len(side) == 3 and side[1].kind == "run":
        return (f"[{texts[1]}]", (), None)
    if texts[0] == "(" and texts[-1] == ")" and all(t.kind == "let" for t in side[1:-1:2]) and len(side) > 3:
        return ("".join(texts), (), None) if set(texts[2:-1:2]) == {","} else None
    if side[0].kind == "fn" and texts[0] in ("lim", "max", "min", "sup", "inf"):
        return (("text " if len(texts) == 1 else "") + " ".join(texts), (), None)
    if side[0].kind == "let" and texts[1:2] == ["("] and texts[-1] == ")" and _EVENTS & set(texts):
        return (" ".join(texts), (), None)
    if side[0].kind == "let" and "".join(texts[1:6]) == "^{-1}" and texts[6:7] == ["("]:
        inverse = simple_name([side[0], *side[6:]])
        return (inverse[0] + " inverse", inverse[1], None) if inverse else None
    if side[0].kind == "let" and len(side) > 3 and texts[1] == "(" and texts[-1] == ")":
        return _function_name(texts)
    return _symbol_name(side, texts)


def _symbol_name(side: Sequence[Token], texts: list[str]) -> Name | None:
    """Of a symbol, or of a function called with symbols or with numbers."""
    try:
        tree = parse_expression(side)
    except Unreadable:
        return None
    if len(side) == 1 and side[0].kind == "run":
        return (texts[0], (), tree)
    if tree[0] == "s" and re.search(r"_\d,\d$", tree[1]):
        return (tree[1][:-4], (), ("s", tree[1][:-4]))  # x_{1,2} are two values of x
    if tree[0] == "s" or tree in (("c", "e"), ("c", "i")):
        return (tree[1], (), tree)
    if tree[0] == "call":
        bound = tuple(argument[1] for argument in tree[2] if argument[0] == "s")
        if len(bound) == len(tree[2]):
            return (tree[1], bound, tree)
        return (" ".join(texts), (), tree) if all(argument[0] == "n" for argument in tree[2]) else None
    return None


def _tree(side: Sequence[Token]) -> Tree | None:
    try:
        return parse_expression(side)
    except Unreadable:
        return None


def _function_name(texts: list[str]) -> Name | None:
    """Of P(x) or E(3), whatever the letter."""
    arguments = texts[2:-1:2]
    if any(text != "," for text in texts[3:-1:2]):
        return None
    if all(len(text) == 1 and text.isalpha() for text in arguments):
        return (texts[0], tuple(arguments), None)
    return ("".join(texts), (), None)


def _equation(sides: list[list[Token]], signs: list[str], read: Reader) -> Value | None:
    name = simple_name(sides[0])
    if name is None and len(sides) == 2 and signs == ["="]:
        turned = simple_name(sides[1])
        if turned is not None and turned[2] is not None:
            name, sides = turned, sides[::-1]
    values = [read(side) for side in sides]
    if any(isinstance(value, Unread) for value in values[1:]):
        return None
    if name is not None and not _mentions(values[-1], name[0]):
        return _named(name, sides, values[1:], signs[1:], signs[0])
    value = _consistent(values, signs)
    if value is not None:
        return value
    value = _asked_expression(sides, values, signs)
    if value is not None:
        return value
    if set(signs) != {"="} or isinstance(values[0], Unread):
        return None
    pairs = [Relation("=", one, other) for one, other in pairwise(values)]
    return pairs[0] if len(pairs) == 1 else Items("list", tuple(pairs))


def _asked_expression(sides: list[list[Token]], values: list[Value], signs: list[str]) -> Value | None:
    """a + b + c = 12 or PQ/RS = 1/3: the value of an expression, where no x, y, z or t makes it an equation."""
    left, right = values[0], _consistent(values[1:], signs[1:])
    if not isinstance(left, Leaf) or not isinstance(right, Leaf) or symbols(right.tree):
        return None
    names = symbols(left.tree)
    if not names or (left.tree[0] in ("*", "/") and any(part[0] == "n" for part in left.tree[1:])):
        return None
    summed = re.fullmatch(r"[A-Za-z](?:\+[A-Za-z]){2,}", "".join(token.text for token in sides[0]))
    if not summed and any(name.split("_")[0] in _UNKNOWNS for name in names):
        return None
    return Named(" ".join(token.text for token in sides[0] if token.text not in "{}"), right, (), left.tree)


def _named(
    name: Name,
    sides: list[list[Token]],
    values: list[Value],
    signs: list[str],
    first: str,
) -> Value | None:
    """The value with its name; x = y = 1 is two of them."""
    value = _consistent(values, signs)
    if value is None:
        others = [simple_name(side) for side in sides[1:-1]]
        if all(others) and set(signs) == {"="}:
            every = [name, *(other for other in others if other)]
            return Items("list", tuple(Named(n[0], values[-1], n[1], n[2]) for n in every))
        return None
    if first == "~" and isinstance(value, Leaf):
        value = Leaf(value.tree, value.unit, value.places, True)
    return Named(name[0], value, name[1], name[2])


def _consistent(values: list[Value], signs: list[str]) -> Value | None:
    """What a chain of equal values, perhaps rounded at its end, comes to; None where they are not equal."""
    if len(values) == 1:
        return values[0]
    if not all(isinstance(value, Leaf) for value in values):
        return None
    leaves = [value for value in values if isinstance(value, Leaf)]
    exact = leaves[: signs.index("~") + 1] if "~" in signs else leaves
    try:
        if not all(same_value(exact[0].tree, leaf.tree) for leaf in exact[1:]):
            return None
    except ValueError:
        return None
    last = exact[-1]
    rounded = leaves[-1] if "~" in signs else None
    if rounded is not None and not rounds_to(last.tree, rounded):
        return None
    return Leaf(last.tree, last.unit or leaves[-1].unit, last.places, last.approximate, rounded)


def rounds_to(tree: Tree, rounded: Leaf) -> bool:
    """Whether a decimal, or a whole number, is the value within one unit of its last place."""
    try:
        with mp.workdps(30):
            value, other = evaluate(tree, {}), evaluate(rounded.tree, {})
            unit = mp.mpf(10) ** -rounded.places if rounded.places else mp.mpf("0.5")
            return bool(abs(value - other) <= unit * mp.mpf("1.0001"))
    except (ValueError, ArithmeticError, KeyError, TypeError):
        return False


def _mentions(value: Value, name: str) -> bool:
    return isinstance(value, Leaf) and name in symbols(value.tree)


def _membership(sides: list[list[Token]], read: Reader) -> Value:
    value = read(sides[1])
    if len(sides[1]) == 1 and sides[1][0].text in ("R", "Z", "Q", "N", "C"):
        value = REALS if sides[1][0].text == "R" else NumberSet(sides[1][0].text)
    if isinstance(value, Bracket):
        value = region_of(value) or value
    name = simple_name(sides[0])
    if isinstance(value, Region) and name is not None:
        return Region(name[0], value.intervals)
    if isinstance(value, Items) and name is not None:
        return Named(name[0], value)
    return Relation("in", read(sides[0]), value)


def _inequality(sides: list[list[Token]], signs: list[str], read: Reader) -> Value | None:
    if any(sign not in ("<", ">", "<=", ">=", "!=") for sign in signs) or len(sides) > 3:
        return None
    values = [as_leaf(read(side)) for side in sides]
    if not all(isinstance(value, Leaf) for value in values):
        return None
    trees = [value.tree for value in values if isinstance(value, Leaf)]
    if all(sign in (">", ">=") for sign in signs):
        sides, trees, values = sides[::-1], trees[::-1], values[::-1]
        signs = [sign.replace(">", "<") for sign in signs[::-1]]
    if len(sides) == 3:
        name = simple_name(sides[1])
        if name is None or "!=" in signs or any(sign not in ("<", "<=") for sign in signs):
            return None
        return Region(name[0], (Interval(trees[0], trees[2], signs[0] == "<=", signs[1] == "<="),))
    return _one_sided(sides, trees, signs[0]) or Relation(signs[0], values[0], values[1])


def as_leaf(value: Value) -> Value:
    """A label such as KM as its letters' product, which an equation can have on either side; others as they are."""
    if not isinstance(value, Words) or not value.letters.isalpha() or len(value.letters) > 4:
        return value
    tree: Tree = ("s", value.letters[0])
    for letter in value.letters[1:]:
        tree = ("*", tree, ("s", letter))
    return Leaf(tree)


def _one_sided(sides: list[list[Token]], trees: list[Tree], sign: str) -> Value | None:
    """left < right, left <= right or left != right as a region: one side is a name, the other has no symbol."""
    for at in (0, 1):
        name = simple_name(sides[at])
        if name is None or symbols(trees[1 - at]) or simple_name(sides[1 - at]) is not None:
            continue
        bound, closed = trees[1 - at], sign == "<="
        if name[0].startswith("|"):
            return absolute(name[0].strip("|"), bound, closed, sign, inside=at == 0)
        if sign == "!=":
            below = Interval(("neg", INFINITY), bound, False, False)
            return Region(name[0], (below, Interval(bound, INFINITY, False, False)))
        if at == 0:
            return Region(name[0], (Interval(("neg", INFINITY), bound, False, closed),))
        return Region(name[0], (Interval(bound, INFINITY, closed, False),))
    return None
