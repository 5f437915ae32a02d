r"""Relations: equations, named values, inequalities as regions of the real line, membership."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from ernie_pipeline.evaluation.answers.expression import Tree, parse_expression
from ernie_pipeline.evaluation.answers.structure import (
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
from ernie_pipeline.evaluation.answers.tokens import Token, Unreadable
from ernie_pipeline.evaluation.answers.values import evaluate, same_value, symbols

SIGNS = {
    "=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in", "to": "to",
    "equiv": "equiv", "notin": "notin", "sim": "to", "cong": "to", "propto": "to", "mapsto": "to", "subset": "to",
    "subseteq": "to", "parallel": "to", "perp": "to",
}  # fmt: skip
"""Tokens that relate two sides, by what they say; "to" stands for all that are compared as text."""

INFINITY: Tree = ("c", "oo")
REALS = Region(None, (Interval(("neg", INFINITY), INFINITY, False, False),))

_UNKNOWNS = frozenset("x y z t r u v X Y".split())
"""Symbols that an equation of a curve has; a relation of others to a number tells the value of an expression."""

_EVENTS = frozenset("= < > le ge ne cup cap | mid".split())
"""Signs in brackets behind a letter that name a probability or a count: P(X = 2), n(A cup B)."""

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
    if signs == ["="] + ["in"]:
        return unread
    return _inequality(sides, signs, read) or unread


def simple_name(side: Sequence[Token]) -> tuple[str, tuple[str, ...], Tree | None] | None:
    """(name, bound symbols, tree) of what can be the name of a value: x, x_1, f(x), AB, |AB|, angle A, "Total"."""
    texts = [token.text for token in side]
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
        return (" ".join(texts), (), None)
    if side[0].kind == "let" and texts[1:2] == ["("] and texts[-1] == ")" and _EVENTS & set(texts):
        return (" ".join(texts), (), None)
    if side[0].kind == "let" and "".join(texts[1:6]) == "^{-1}" and texts[6:7] == ["("]:
        inverse = simple_name([side[0], *side[6:]])
        return (inverse[0] + " inverse", inverse[1], None) if inverse else None
    if side[0].kind == "let" and len(side) > 3 and texts[1] == "(" and texts[-1] == ")":
        return _function_name(texts)
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


def _function_name(texts: list[str]) -> tuple[str, tuple[str, ...], Tree | None] | None:
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
    pairs = [Relation("=", one, other) for one, other in zip(values, values[1:], strict=False)]
    return pairs[0] if len(pairs) == 1 else Items("list", tuple(pairs))


def _asked_expression(sides: list[list[Token]], values: list[Value], signs: list[str]) -> Value | None:
    """a + b + c = 12 or PQ/RS = 1/3: the value of an expression, where no x, y, z or t makes it an equation."""
    left, right = values[0], _consistent(values[1:], signs[1:])
    if not isinstance(left, Leaf) or not isinstance(right, Leaf) or symbols(right.tree):
        return None
    names = symbols(left.tree)
    if not names or left.tree[0] in ("*", "/") and any(part[0] == "n" for part in left.tree[1:]):
        return None
    summed = re.fullmatch(r"[A-Za-z](?:\+[A-Za-z]){2,}", "".join(token.text for token in sides[0]))
    if not summed and any(name.split("_")[0] in _UNKNOWNS for name in names):
        return None
    return Named(" ".join(token.text for token in sides[0] if token.text not in "{}"), right, (), left.tree)


def _named(
    name: tuple[str, tuple[str, ...], Tree | None],
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
    """left < right, left <= right or left != right as a region, where one side is a name and the other has no symbol."""
    for at in (0, 1):
        name = simple_name(sides[at])
        if name is None or symbols(trees[1 - at]) or simple_name(sides[1 - at]) is not None:
            continue
        bound, closed = trees[1 - at], sign == "<="
        if name[0].startswith("|"):
            return _absolute(name[0].strip("|"), bound, closed, sign, inside=at == 0)
        if sign == "!=":
            below = Interval(("neg", INFINITY), bound, False, False)
            return Region(name[0], (below, Interval(bound, INFINITY, False, False)))
        if at == 0:
            return Region(name[0], (Interval(("neg", INFINITY), bound, False, closed),))
        return Region(name[0], (Interval(bound, INFINITY, closed, False),))
    return None


def _absolute(name: str, bound: Tree, closed: bool, sign: str, *, inside: bool) -> Value | None:
    """|x| < b as (-b, b), |x| > b as what is outside of it."""
    if sign == "!=":
        return None
    below: Tree = ("neg", bound)
    if inside:
        return Region(name, (Interval(below, bound, closed, closed),))
    left = Interval(("neg", INFINITY), below, False, closed)
    return Region(name, (left, Interval(bound, INFINITY, closed, False)))


def region_of(value: Value) -> Region | None:
    """The interval, the single points or the region that a value is; None for others."""
    if isinstance(value, Region):
        return value
    if isinstance(value, Bracket) and len(value.items) == 2 and value.opening in "([" and value.closing in ")]":
        low, high = value.items
        if isinstance(low, Leaf) and isinstance(high, Leaf):
            return Region(None, (Interval(low.tree, high.tree, value.opening == "[", value.closing == "]"),))
    if isinstance(value, Items) and value.kind == "set" and all(isinstance(item, Leaf) for item in value.items):
        trees = [item.tree for item in value.items if isinstance(item, Leaf)]
        return Region(None, tuple(Interval(tree, tree, True, True) for tree in trees))
    return None


def built(element: Value, condition: Value) -> Value | None:
    """{x | x > 1} as the region that it is."""
    if isinstance(element, Relation) and isinstance(condition, Region):
        return _whole_numbers(element, condition)
    name = element.tree[1] if isinstance(element, Leaf) and element.tree[0] == "s" else None
    if isinstance(element, Region) and element.intervals == REALS.intervals:
        name = element.name
    if isinstance(condition, Named) and condition.name == name:
        value = condition.value
        return value if isinstance(value, Items) else Items("set", (value,))
    if name is not None and isinstance(condition, Region) and condition.name == name:
        return Region(None, condition.intervals)
    return None


def _whole_numbers(element: Relation, condition: Region) -> Value | None:
    """{n in Z : 0 < n < 4} as {1, 2, 3}."""
    known = isinstance(element.left, Leaf) and element.left.tree == ("s", condition.name)
    if not known or not isinstance(element.right, NumberSet) or element.right.name not in ("Z", "N", "Z^+", "N^*"):
        return None
    found = []
    for interval in condition.intervals:
        low, high = number(interval.low), number(interval.high)
        if low is None or high is None or mp.isinf(low) or mp.isinf(high) or high - low > 1000:
            return None
        first, last = int(mp.ceil(low)), int(mp.floor(high))
        first += first == low and not interval.low_closed
        last -= last == high and not interval.high_closed
        found += range(first, last + 1)
    positive = element.right.name != "Z"
    return Items("set", tuple(Leaf(("n", Fraction(each))) for each in found if each > 0 or not positive))


def union(values: list[Value]) -> Value | None:
    """The union of intervals and finite sets; None where something else is among them."""
    regions = [region_of(value) for value in values]
    if not all(regions):
        return None
    names = {region.name for region in regions if region and region.name}
    if len(names) > 1:
        return None
    intervals = [interval for region in regions if region for interval in region.intervals]
    return Region(names.pop() if names else None, tidy(intervals))


def without(whole: Value, part: Value) -> Value | None:
    """A region less a finite set."""
    region = region_of(whole)
    if region is None or not isinstance(part, Items) or not all(isinstance(item, Leaf) for item in part.items):
        return None
    intervals = list(region.intervals)
    for item in part.items:
        tree = item.tree if isinstance(item, Leaf) else ("n", Fraction(0))
        intervals = [piece for interval in intervals for piece in _cut(interval, tree)]
    return Region(region.name, tidy(intervals))


def _cut(interval: Interval, tree: Tree) -> list[Interval]:
    low, at, high = number(interval.low), number(tree), number(interval.high)
    if low is None or at is None or high is None or not low <= at <= high:
        return [interval]
    pieces = [
        Interval(interval.low, tree, interval.low_closed and low < at, False),
        Interval(tree, interval.high, False, interval.high_closed and at < high),
    ]
    return [piece for piece, empty in zip(pieces, (low == at, at == high), strict=True) if not empty]


def rays(relation: Relation) -> list[Region]:
    """x >= a as [a, infinity), or as (-infinity, x]: for which symbol it is solved is not said."""
    left, right = relation.left, relation.right
    if relation.operator not in ("<", "<=") or not isinstance(left, Leaf) or not isinstance(right, Leaf):
        return []
    closed, out = relation.operator == "<=", []
    if left.tree[0] == "s":
        out.append(Region(left.tree[1], (Interval(("neg", INFINITY), right.tree, False, closed),)))
    if right.tree[0] == "s":
        out.append(Region(right.tree[1], (Interval(left.tree, INFINITY, closed, False),)))
    return out


def excluded(items: list[Value]) -> list[Value]:
    """x != 1, x != 2 and x != 1, 2 as what is left of the line; other lists as they are."""
    first = items[0]
    if len(items) > 1 and isinstance(items[1], Region) and not _is_exclusion(items[1]):
        items = [items[1], first, *items[2:]]
        first = items[0]
    if not isinstance(first, Region) or not first.name or len(items) < 2:
        return items
    region: Region = first
    for item in items[1:]:
        if isinstance(item, Region) and item.name == first.name and _is_exclusion(item):
            points = Items("set", (Leaf(item.intervals[0].high),))
        elif isinstance(item, Leaf) and _is_exclusion(first):
            points = Items("set", (item,))
        else:
            return items
        left = without(region, points)
        if not isinstance(left, Region):
            return items
        region = left
    return [region]


def _is_exclusion(region: Region) -> bool:
    return len(region.intervals) == 2 and region.intervals[0].high == region.intervals[1].low


def joined(items: list[Value], joiner: str) -> Value | None:
    """x < 1 or x > 2 as a union, x > 1 and x < 5 as what both allow; None for other lists."""
    regions_named = {item.name for item in items if isinstance(item, Region)}
    if joiner == "or" and len(regions_named) == 1:
        items = [
            Region(item.name, (Interval(item.value.tree, item.value.tree, True, True),))
            if isinstance(item, Named) and item.name in regions_named and isinstance(item.value, Leaf)
            else item
            for item in items
        ]
    if joiner == "," or not all(isinstance(item, Region) and item.name for item in items):
        return None
    if joiner == "or":
        return union(items)
    regions = [item for item in items if isinstance(item, Region)]
    if len({region.name for region in regions}) > 1:
        return None
    intervals = list(regions[0].intervals)
    for region in regions[1:]:
        pairs = [(one, other) for one in intervals for other in region.intervals]
        intervals = [both for one, other in pairs if (both := _common(one, other)) is not None]
    return Region(regions[0].name, tidy(intervals))


def _common(one: Interval, other: Interval) -> Interval | None:
    ends = [number(tree) for tree in (one.low, other.low, one.high, other.high)]
    if any(end is None for end in ends):
        return None
    a, b, c, d = ends
    low, low_closed = (one.low, one.low_closed) if a > b else (other.low, other.low_closed)
    high, high_closed = (one.high, one.high_closed) if c < d else (other.high, other.high_closed)
    if a == b:
        low_closed = one.low_closed and other.low_closed
    if c == d:
        high_closed = one.high_closed and other.high_closed
    low_end, high_end = max(a, b), min(c, d)
    if low_end > high_end or (low_end == high_end and not (low_closed and high_closed)):
        return None
    return Interval(low, high, low_closed, high_closed)


def number(tree: Tree) -> Any:
    """The real value of an end, or None where it has symbols or is not real."""
    if symbols(tree):
        return None
    try:
        with mp.workdps(40):
            value = evaluate(tree, {})
            return mp.re(value) if mp.im(value) == 0 and not mp.isnan(value) else None
    except (ValueError, ArithmeticError, KeyError, TypeError):
        return None


def tidy(intervals: list[Interval]) -> tuple[Interval, ...]:
    """In order, touching ones joined; as they are where an end has symbols."""
    keyed = [(number(interval.low), number(interval.high), interval) for interval in intervals]
    if any(low is None or high is None for low, high, _ in keyed):
        return tuple(intervals)
    keyed.sort(key=lambda each: (each[0], not each[2].low_closed))
    out: list[tuple[Any, Any, Interval]] = []
    for low, high, interval in keyed:
        if out and (low < out[-1][1] or (low == out[-1][1] and (interval.low_closed or out[-1][2].high_closed))):
            before = out[-1][2]
            further = high > out[-1][1]
            end, closed = (interval.high, interval.high_closed) if further else (before.high, before.high_closed)
            if high == out[-1][1]:
                closed = interval.high_closed or before.high_closed
            out[-1] = (out[-1][0], max(high, out[-1][1]), Interval(before.low, end, before.low_closed, closed))
        else:
            out.append((low, high, interval))
    return tuple(interval for _, _, interval in out)


__all__ = ["REALS", "NumberSet", "Words"]
