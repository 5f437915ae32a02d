r"""Names in lists of values, and parts that only say what a symbol may be: k in Z."""

from ernie_pipeline.grading.regions import REALS
from ernie_pipeline.grading.structure import (
    Bracket,
    Items,
    Leaf,
    Matrix,
    Named,
    NumberSet,
    Region,
    Relation,
    Value,
)
from ernie_pipeline.grading.tree import rename


def expanded(named: Named) -> Items | None:
    """(x, y) = (1, 2) as x = 1, y = 2."""
    names = [name for name in named.name.strip("()").split(",") if name]
    if named.name.startswith("(") and isinstance(named.value, Bracket) and len(named.value.items) == len(names):
        pairs = zip(names, named.value.items, strict=True)
        return Items("list", tuple(Named(name, value) for name, value in pairs))
    return None


def without_name(items: Items, name: str) -> Items:
    """x = 1, 2, x = 3 as 1, 2, 3, for the name x."""
    fits = [isinstance(item, Named) and item.name.split("_")[0] == name.split("_")[0] for item in items.items]
    pairs = zip(items.items, fits, strict=True)
    kept = tuple(item.value if fit and isinstance(item, Named) else item for item, fit in pairs)
    return Items(items.kind, kept, items.joiner)


def without_numbers(one: list[Value], other: list[Value]) -> tuple[list[Value], list[Value]]:
    """x_1 = 2, x_2 = 3 and x = 2 or x = 3 as bare values: where one side's values all have the same name."""
    names = [[item.name for item in items if isinstance(item, Named)] for items in (one, other)]
    stems = {name.split("_")[0] for each in names for name in each}
    if len(stems) == 1 and any(len(set(each)) == 1 for each in names):
        one, other = ([i.value for i in items if isinstance(i, Named)] for items in (one, other))
    return one, other


def _is_domain(value: Value) -> bool:
    return domain_name(value) is not None


def domain_name(value: Value) -> str | None:
    """The symbol of which a part only says that it is any whole or real number."""
    if isinstance(value, Region) and value.intervals == REALS.intervals:
        return value.name
    if isinstance(value, Relation) and value.operator == "in" and isinstance(value.right, NumberSet):
        return value.left.tree[1] if isinstance(value.left, Leaf) and value.left.tree[0] == "s" else None
    return None


def without_domains(items: Items) -> tuple[Value, ...]:
    kept = tuple(item for item in items.items if not _is_domain(item))
    return kept or items.items


def renamed(one: list[Value], other: list[Value]) -> list[Value]:
    """The other list with its whole-number symbol called as in the first: n pi, n in Z, for k pi, k in Z."""
    names = []
    for items in (one, other):
        domains = [name for name in map(domain_name, items) if name]
        if len(domains) != 1:
            return other
        names.append(domains[0])
    return [rename_value(item, names[1], names[0]) for item in other]


def rename_value(value: Value, old: str, new: str) -> Value:
    if isinstance(value, Leaf):
        return Leaf(rename(value.tree, old, new), value.unit, value.places)
    if isinstance(value, Named):
        return Named(value.name, rename_value(value.value, old, new), value.bound, value.left)
    if isinstance(value, Region):
        return Region(new if value.name == old else value.name, value.intervals)
    if isinstance(value, Matrix):
        return Matrix(value.kind, tuple(tuple(rename_value(cell, old, new) for cell in row) for row in value.rows))
    if isinstance(value, Bracket):
        return Bracket(value.opening, value.closing, tuple(rename_value(item, old, new) for item in value.items))
    if isinstance(value, Items):
        return Items(value.kind, tuple(rename_value(item, old, new) for item in value.items), value.joiner)
    if isinstance(value, Relation):
        return Relation(value.operator, rename_value(value.left, old, new), value.right)
    return value
