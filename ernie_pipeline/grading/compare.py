r"""Whether an answer says what the reference answer says: `differs` gives the first difference found, or None.

What must be equal and what may differ is stated, as tables, in README.md.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from ernie_pipeline.grading.compare_forms import (
    OTHER,
    bracket_and_leaf,
    fitting_labels,
    list_and_region,
    pair,
    region_rule,
    same_clocks,
    same_congruences,
    same_leaves,
    same_ratios,
    same_regions,
    same_words,
)
from ernie_pipeline.grading.conversions import binomial, is_money, rows_of, with_empty
from ernie_pipeline.grading.domains import (
    domain_name,
    expanded,
    renamed,
    without_domains,
    without_name,
    without_numbers,
)
from ernie_pipeline.grading.equations import same_equation, same_inequality, same_solutions
from ernie_pipeline.grading.leaves import leaf_differs, total
from ernie_pipeline.grading.regions import rays, region_of
from ernie_pipeline.grading.structure import (
    Based,
    Bracket,
    Builder,
    Cases,
    Choice,
    Clock,
    Congruence,
    Items,
    Leaf,
    Matrix,
    Named,
    NumberSet,
    Phrase,
    Ratio,
    Region,
    Relation,
    Unread,
    Value,
    Words,
)
from ernie_pipeline.grading.tree import rename, symbols

_MANY = 60
"""Parts of a list up to which each is compared with each."""


def differs(reference: Value, answer: Value) -> str | None:
    """The first difference, in a few words; None where the answer says the same.

    Raises `TooLarge` where a value cannot be computed.
    """
    for kind, rule in _FIRST:
        if isinstance(reference, kind) or isinstance(answer, kind):
            return rule(reference, answer)
    rule_for_pair = _SAME_KIND.get(type(reference))
    if rule_for_pair is not None and type(reference) is type(answer):
        return rule_for_pair(reference, answer)
    return _mixed(reference, answer)


def _choice(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Choice) and isinstance(answer, Choice):
        if reference.letter != answer.letter:
            return "the letter differs"
        return differs(reference.value, answer.value)
    choice, other = (reference, answer) if isinstance(reference, Choice) else (answer, reference)
    assert isinstance(choice, Choice)
    if isinstance(other, Leaf) and other.tree[0] == "s" and len(other.tree[1]) == 1 and other.tree[1].isupper():
        return None if other.tree[1] == choice.letter else "the letter differs"
    return differs(reference.value, answer) if choice is reference else differs(reference, choice.value)


def _lists(reference: Value, answer: Value) -> str | None:
    """Lists, sets and sequences with each other and with what stands alone."""
    if isinstance(reference, Items) and isinstance(answer, Items):
        return _items(reference, answer)
    items, other = (reference, answer) if isinstance(reference, Items) else (answer, reference)
    assert isinstance(items, Items)
    if len(items.items) == 1 and items.kind != "sequence":
        return differs(items.items[0], other) if items is reference else differs(other, items.items[0])
    if not items.items:
        return with_empty(other.value if isinstance(other, Named) else other)
    without = without_domains(items)
    if len(without) == 1:
        return differs(without[0], other) if items is reference else differs(other, without[0])
    if isinstance(other, Named):
        named = expanded(other)
        if named is not None:
            return _items(items, named) if items is reference else _items(named, items)
    if isinstance(other, Bracket):
        return _list_and_bracket(items, other)
    if isinstance(other, Region):
        return list_and_region(items, other)
    if isinstance(other, Phrase | Leaf) and total(items) is not None:
        return _quantities(reference, answer)
    if isinstance(other, Named):
        bare = without_name(items, other.name)
        return differs(bare, other.value) if items is reference else differs(other.value, bare)
    if isinstance(other, Matrix) and other.kind == "matrix":
        return OTHER
    if items is reference:
        return f"{len(items.items)} values are asked"
    return f"{len(items.items)} values are given where one is asked"


def _list_and_bracket(items: Items, bracket: Bracket) -> str | None:
    """x = 1, y = 2 is the point (1, 2), and so are three values and more in the same order."""
    values = list(items.items)
    if all(isinstance(value, Named) for value in values):
        named = sorted((value for value in values if isinstance(value, Named)), key=lambda each: each.name)
        if len({each.name for each in named}) == len(named) and bracket.opening in "(<":
            return _in_order([each.value for each in named], bracket.items)
        return OTHER
    if items.kind == "list" and len(values) > 2 and bracket.opening in "([<":
        return _in_order(values, bracket.items)
    return "brackets and order matter here"


def _items(reference: Items, answer: Items) -> str | None:
    if "sequence" in (reference.kind, answer.kind):
        return _in_order(reference.items, answer.items)
    if reference.kind == answer.kind == "list" and total(reference) is not None and total(answer) is not None:
        return _quantities(reference, answer)
    one, other = list(reference.items), list(answer.items)
    if {reference.joiner, answer.joiner} == {"and", "or"} and all(
        isinstance(item, Leaf) and item.tree[0] == "s" for item in one
    ):
        return "p and q is not p or q"
    named = [all(isinstance(item, Named) for item in items) for items in (one, other)]
    if named[0] != named[1] and one and other and "set" in (reference.kind, answer.kind):
        distinct = {item.name for item in (one if named[0] else other) if isinstance(item, Named)}
        if len(distinct) > 1:
            return "a set does not say which is which"
    if named[0] != named[1] and one and other:
        return _named_and_bare(one, other, named[0])
    if all(named) and one and other:
        one, other = without_numbers(one, other)
    domains = [len(without_domains(items)) < len(items.items) for items in (reference, answer)]
    if domains[0] != domains[1]:
        one, other = list(without_domains(reference)), list(without_domains(answer))
    elif domains[0]:
        other = renamed(one, other)
    return _unordered(one, other)


def _named_and_bare(one: list[Value], other: list[Value], first: bool) -> str | None:
    """x_1 = -2, x_2 = -3 with -2, -3: without order where the names are of one kind, else in the names' order."""
    named = [value for value in (one if first else other) if isinstance(value, Named)]
    if any(isinstance(value, Named) for value in (other if first else one)):
        bare = [value.value if isinstance(value, Named) else value for value in (other if first else one)]
    else:
        bare = other if first else one
    if len({name.name.split("_")[0] for name in named}) > 1:
        orders = [named, sorted(named, key=lambda each: each.name)]
        found = [_in_order(*pair([each.value for each in order], bare, first)) for order in orders]
        return None if None in found else found[0]
    values: list[Value] = [each.value for each in named]
    return _unordered(values, bare) if first else _unordered(bare, values)


def _element_differs(reference: Value, answer: Value) -> str | None:
    """As `differs`; but as an element {4} is not 4."""
    sets = [isinstance(value, Items) and value.kind == "set" for value in (reference, answer)]
    return "a set is not its element" if sets[0] != sets[1] else differs(reference, answer)


def _unordered(reference: Sequence[Value], answer: Sequence[Value]) -> str | None:
    """Whether each element has its own partner; the first that lacks one."""
    if len(reference) != len(answer):
        return f"{len(reference)} parts are asked, {len(answer)} are given"
    if len(reference) > _MANY:
        same = Counter(map(repr, reference)) == Counter(map(repr, answer))
        return None if same else "a part differs"
    left = list(answer)
    for number, item in enumerate(reference):
        partner = next((at for at, other in enumerate(left) if _element_differs(item, other) is None), None)
        if partner is None:
            return f"part {number + 1} of {len(reference)} is missing or differs"
        left.pop(partner)
    return None


def _in_order(reference: Sequence[Value], answer: Sequence[Value]) -> str | None:
    if len(reference) != len(answer):
        return f"{len(reference)} parts are asked, {len(answer)} are given"
    for number, (one, other) in enumerate(zip(reference, answer, strict=True)):
        found = _element_differs(one, other)
        if found is not None:
            return f"part {number + 1}: {found}"
    return None


def _quantities(reference: Value, answer: Value) -> str | None:
    one, other = total(reference), total(answer)
    if one is not None and other is not None and one.unit is not None and other.unit is not None:
        return leaf_differs(one, other)
    if isinstance(reference, Phrase) and isinstance(answer, Phrase):
        return _in_order(reference.parts, answer.parts)
    if isinstance(reference, Items) and isinstance(answer, Items):
        return _unordered(reference.items, answer.items)
    if isinstance(answer, Leaf) and one is not None and answer.unit is None and is_money(one):
        return leaf_differs(one, answer)
    parts = [value.parts if isinstance(value, Phrase) else value.items if isinstance(value, Items) else ()
             for value in (reference, answer)]  # fmt: skip
    return _unordered(*parts) if all(parts) else "the quantities differ"


def _named(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Named) and isinstance(answer, Named):
        return _both_named(reference, answer)
    named, other = (reference, answer) if isinstance(reference, Named) else (answer, reference)
    assert isinstance(named, Named)
    chosen = binomial(named) if isinstance(other, Leaf) else None
    if chosen is not None:
        return differs(chosen, other) if named is reference else differs(other, chosen)
    if isinstance(other, Congruence):
        return "a congruence is no value"
    if isinstance(other, Relation):
        same = other.operator == "=" and same_equation(reference, answer)
        return None if same else "the relation differs"
    return differs(named.value, other) if named is reference else differs(other, named.value)


def _both_named(reference: Named, answer: Named) -> str | None:
    value = answer.value
    if isinstance(value, Leaf) and answer.bound and (set(reference.bound) - set(answer.bound)) & symbols(value.tree):
        return "it depends on another symbol"
    if len(reference.bound) == len(answer.bound) and isinstance(value, Leaf):
        tree = value.tree
        for number, old in enumerate(answer.bound):
            tree = rename(tree, old, f"bound {number}")
        for number, new in enumerate(reference.bound):
            tree = rename(tree, f"bound {number}", new)
        value = Leaf(tree, value.unit, value.places, value.approximate, value.then)
    if reference.name == answer.name or fitting_labels(reference.name, answer.name):
        return differs(reference.value, value)
    if reference.name.startswith("(") and sorted(reference.name) == sorted(answer.name):
        pairs = expanded(reference), expanded(answer)
        return _items(pairs[0], pairs[1]) if pairs[0] and pairs[1] else "another name"
    if {bool(reference.bound), bool(answer.bound)} == {True, False} and "y" in (reference.name, answer.name):
        return differs(reference.value, value)
    if (
        reference.name.startswith("angle")
        and answer.name.startswith("angle")
        and len(reference.name) != len(answer.name)
    ):
        return differs(reference.value, value)
    return None if same_equation(reference, answer) else "another name or equation"


def _relations(reference: Value, answer: Value) -> str | None:
    if not isinstance(reference, Relation) or not isinstance(answer, Relation):
        relation, other = (reference, answer) if isinstance(reference, Relation) else (answer, reference)
        assert isinstance(relation, Relation)
        if relation.operator == "in" and isinstance(other, NumberSet):
            return None if relation.right == other else "another set of numbers"
        if isinstance(other, Bracket | Region) and same_solutions(relation, region_of(other)):
            return None
        found = rays(relation) if isinstance(other, Bracket | Region) else []
        return None if any(same_regions(other, ray) is None for ray in found) else "a relation is no value"
    if reference.operator != answer.operator:
        return "the relation's sign differs"
    if reference.operator == "in":
        return differs(reference.left, answer.left) or differs(reference.right, answer.right)
    if reference.operator == "=":
        return None if same_equation(reference, answer) else "the equation differs"
    return None if same_inequality(reference, answer) else "the inequality differs"


def _brackets(reference: Bracket, answer: Bracket) -> str | None:
    same = (reference.opening, reference.closing) == (answer.opening, answer.closing)
    ordered = {"(": "<", "[": "<" if len(reference.items) > 2 else "["}
    ends = [ordered.get(each.opening, each.opening) for each in (reference, answer)]
    pairs = all((each.opening, each.closing) in (("(", ")"), ("[", "]"), ("<", ">")) for each in (reference, answer))
    if not same and not (pairs and ends[0] == ends[1]):
        return "the brackets differ"
    return _in_order(reference.items, answer.items)


def _matrices(reference: Value, answer: Value) -> str | None:
    rows = [rows_of(value) for value in (reference, answer)]
    if rows[0] is None or rows[1] is None:
        return OTHER
    shapes = [[len(row) for row in each] for each in (rows[0], rows[1])]
    matrices = [value.kind for value in (reference, answer) if isinstance(value, Matrix)]
    if len(matrices) == 2 and (matrices[0] != matrices[1] or shapes[0] != shapes[1]):
        return "the shape differs"
    return _in_order([cell for row in rows[0] for cell in row], [cell for row in rows[1] for cell in row])


def _matrix_and_bracket(reference: Value, answer: Value) -> str | None:
    matrix = reference if isinstance(reference, Matrix) else answer
    assert isinstance(matrix, Matrix)
    flat = len(matrix.rows) == 1 or all(len(row) == 1 for row in matrix.rows)
    if matrix.kind == "det" or (
        (reference is not matrix or answer is not matrix)
        and not ((isinstance(reference, Matrix) and isinstance(answer, Matrix)) or flat)
    ):
        return _matrices(reference, answer) if isinstance(reference, Matrix) and isinstance(answer, Matrix) else OTHER
    return _matrices(reference, answer)


def _phrases(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Phrase) and isinstance(answer, Phrase):
        if total(reference) is not None and total(answer) is not None:
            return _quantities(reference, answer)
        return _in_order(reference.parts, answer.parts)
    if total(reference) is not None and (total(answer) is not None or isinstance(answer, Leaf)):
        return _quantities(reference, answer)
    return "words beside the value say something else"


def _cases(reference: Value, answer: Value) -> str | None:
    if not isinstance(reference, Cases) or not isinstance(answer, Cases):
        return "a definition by cases is no single value"
    left = list(answer.rows)
    for number, row in enumerate(reference.rows):
        partner = next((at for at, other in enumerate(left) if _in_order(row, other) is None), None)
        if partner is None:
            return f"case {number + 1} differs"
        left.pop(partner)
    return "there are more cases" if left else None


def _builders(reference: Value, answer: Value) -> str | None:
    if isinstance(reference, Builder) and isinstance(answer, Builder):
        pair = renamed([reference.element, reference.condition], [answer.element, answer.condition])
        answer = Builder(pair[0], pair[1])
        return differs(reference.element, answer.element) or differs(reference.condition, answer.condition)
    for one, other in ((reference, answer), (answer, reference)):
        if isinstance(one, Builder) and isinstance(one.condition, Relation) and isinstance(other, Bracket | Region):
            return None if same_solutions(one.condition, region_of(other)) else "another set"
        if isinstance(one, Builder) and domain_name(one.condition) is not None:
            family = Items("list", (one.element, one.condition))
            return differs(family, other) if one is reference else differs(other, family)
    return "a set by its condition is not this"


def _mixed(reference: Value, answer: Value) -> str | None:
    """Kinds that have nothing in common."""
    if reference == answer and not isinstance(answer, Unread):
        return None
    if {type(reference), type(answer)} == {Bracket, Leaf}:
        return bracket_and_leaf(reference, answer)
    if isinstance(answer, Unread):
        if isinstance(reference, Unread) and reference.text == answer.text and answer.text:
            return None
        return "it cannot be read as a value" if answer.text else "there is no answer"
    return OTHER


_Rule = Callable[..., str | None]


_FIRST: tuple[tuple[type, _Rule], ...] = (
    (Choice, _choice),
    (Items, _lists),
    (Named, _named),
    (Relation, _relations),
    (Region, region_rule),
    (Phrase, _phrases),
    (Words, same_words),
    (Matrix, _matrix_and_bracket),
    (Congruence, same_congruences),
    (Ratio, same_ratios),
    (Clock, same_clocks),
    (Cases, _cases),
    (Builder, _builders),
)
"""The rule for a pair in which either is of the kind; the first that fits decides."""


_SAME_KIND: dict[type, _Rule] = {
    Leaf: same_leaves,
    Bracket: _brackets,
    Based: lambda one, other: None if one == other else "the digits or the base differ",
}
