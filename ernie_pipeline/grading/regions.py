r"""Regions of the real line: intervals, their unions, what inequalities and exclusions leave."""

from fractions import Fraction
from typing import Any

from mpmath import mp

from ernie_pipeline.grading.numeric import evaluate
from ernie_pipeline.grading.structure import (
    Bracket,
    Interval,
    Items,
    Leaf,
    Named,
    NumberSet,
    Region,
    Relation,
    Value,
)
from ernie_pipeline.grading.tree import Tree, symbols

INFINITY: Tree = ("c", "oo")


REALS = Region(None, (Interval(("neg", INFINITY), INFINITY, False, False),))


def absolute(name: str, bound: Tree, closed: bool, sign: str, *, inside: bool) -> Value | None:
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
    """{x | x > 1} as the region that it is, {n in Z : 0 < n < 4} as {1, 2, 3}."""
    name = element.tree[1] if isinstance(element, Leaf) and element.tree[0] == "s" else None
    if isinstance(element, Region) and element.intervals == REALS.intervals:
        name = element.name
    parts = list(condition.items) if isinstance(condition, Items) else [condition]
    whole = next((part for part in [element, *parts] if isinstance(part, Relation) and part.operator == "in"), None)
    parts = [part for part in parts if part is not whole and part != Region(name, REALS.intervals)]
    if len(parts) != len([condition]) or isinstance(condition, Items):
        condition = parts[0] if len(parts) == 1 else (joined(parts, "and") if parts else None) or condition
    if whole is not None:
        return _whole_numbers(whole, condition) if isinstance(condition, Region) else None
    if isinstance(condition, Named) and condition.name == name:
        value = condition.value
        return value if isinstance(value, Items) else Items("set", (value,))
    if name is not None and isinstance(condition, Region) and condition.name == name:
        return Region(None, condition.intervals)
    return None


def _whole_numbers(element: Relation, condition: Region) -> Value | None:
    known = isinstance(element.left, Leaf) and element.left.tree == ("s", condition.name)
    if not known or not isinstance(element.right, NumberSet):
        return None
    return whole_numbers(condition, element.right)


def whole_numbers(region: Region, among: NumberSet) -> Value | None:
    """The finitely many whole numbers of a region as a set."""
    if among.name not in ("Z", "N", "Z+", "Z0+", "W"):
        return None
    found: list[int] = []
    for interval in region.intervals:
        low, high = number(interval.low), number(interval.high)
        if low is None or high is None or mp.isinf(low) or mp.isinf(high) or high - low > 1000:
            return None
        first, last = int(mp.ceil(low)), int(mp.floor(high))
        first += first == low and not interval.low_closed
        last -= last == high and not interval.high_closed
        found += range(first, last + 1)
    least = {"Z": -(10**12), "N": 1, "Z+": 1, "Z0+": 0, "W": 0}[among.name]
    return Items("set", tuple(Leaf(("n", Fraction(each))) for each in found if each >= least))


def intersection(values: list[Value]) -> Value | None:
    """What regions have in common; with Z, the whole numbers of it."""
    among = [value for value in values if isinstance(value, NumberSet)]
    regions = [region_of(value) for value in values if not isinstance(value, NumberSet)]
    found = [region for region in regions if region is not None]
    if not found or len(found) < len(regions) or len(among) > 1:
        return None
    region = found[0]
    for other in found[1:]:
        pairs = [(one, two) for one in region.intervals for two in other.intervals]
        region = Region(region.name, tidy([both for one, two in pairs if (both := _common(one, two)) is not None]))
    if not region.intervals:
        return Items("set", ())
    return whole_numbers(region, among[0]) if among else region


def union(values: list[Value]) -> Value | None:
    """The union of intervals and finite sets; None where something else is among them."""
    regions = [region_of(value) for value in values]
    if not all(regions):
        return None
    names = {region.name for region in regions if region and region.name}
    if len(names) > 1:
        return None
    intervals = [interval for region in regions if region for interval in region.intervals]
    return _finished(names.pop() if names else None, intervals)


def without(whole: Value, part: Value) -> Value | None:
    """A region less a finite set."""
    region = region_of(whole)
    if region is None or not isinstance(part, Items):
        return None
    part = Items("set", tuple(item.value if isinstance(item, Named) else item for item in part.items))
    if not all(isinstance(item, Leaf) for item in part.items):
        return None
    intervals = list(region.intervals)
    for item in part.items:
        tree = item.tree if isinstance(item, Leaf) else ("n", Fraction(0))
        intervals = [piece for interval in intervals for piece in _cut(interval, tree)]
    return _finished(region.name, intervals)


def _finished(name: str | None, intervals: list[Interval]) -> Value:
    """The region of the intervals; single points alone are a set."""
    united = tidy(intervals)
    if all(interval.low == interval.high for interval in united):
        return Items("set", tuple(Leaf(interval.low) for interval in united))
    return Region(name, united)


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
