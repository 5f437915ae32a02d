r"""Trees of expressions: what every part of the grader knows of them. Their kinds: expression.py."""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ernie_pipeline.grading.tokens import Token

Tree = tuple[Any, ...]


def symbol_name(tokens: Sequence[Token]) -> str:
    """The name that subscript tokens spell."""
    return "".join(token.text for token in tokens if token.text not in ("{", "}"))


def is_vector(tree: Tree) -> bool:
    return tree[0] == "s" and str(tree[1]).startswith(("vec ", "hat "))


def with_index(tree: Tree, subscript: str) -> Tree:
    """The body of a sum with a_k, whatever k is called."""
    if tree[0] == "s" and tree[1].endswith(subscript):
        return ("s", tree[1].removesuffix(subscript) + "_index")
    return tuple(with_index(part, subscript) if isinstance(part, tuple) and part else part for part in tree)


def numbers(tree: Tree) -> frozenset[Fraction]:
    """The numbers in the tree."""
    if tree[0] == "n":
        return frozenset([tree[1]])
    found: set[Fraction] = set()
    for part in tree[1:]:
        if isinstance(part, tuple):
            for each in [part] if part and isinstance(part[0], str) else part:
                found |= numbers(each)
    return frozenset(found)


@lru_cache(maxsize=2048)
def symbols(tree: Tree) -> frozenset[str]:
    """The names of the free symbols."""
    if tree[0] == "s":
        return frozenset([tree[1]])
    found: set[str] = set()
    for part in tree[1:]:
        if isinstance(part, tuple):
            for each in [part] if part and isinstance(part[0], str) else part:
                found |= symbols(each)
    return frozenset(found - {tree[1]} if tree[0] in ("sum", "prod", "int", "lim") else found)


def heads(tree: Tree) -> frozenset[str]:
    """Which kinds of node the tree has, and which functions and constants."""
    found = {tree[0]} | ({tree[1]} if tree[0] in ("f", "c") else set())
    for part in tree[1:]:
        if isinstance(part, tuple):
            for each in [part] if part and isinstance(part[0], str) else part:
                found |= heads(each)
    return frozenset(found)


def rename(tree: Tree, old: str, new: str) -> Tree:
    """The tree with one symbol called another name."""
    if tree == ("s", old):
        return ("s", new)
    return tuple(rename(part, old, new) if isinstance(part, tuple) else part for part in tree)


def called(tree: Tree) -> frozenset[str]:
    """The names of the functions that nobody defined, called with one argument that is no number."""
    found: set[str] = set()
    if tree[0] == "call" and len(tree[2]) == 1 and tree[2][0][0] != "n":
        found.add(tree[1])
    for part in tree[1:]:
        if isinstance(part, tuple):
            for each in [part] if part and isinstance(part[0], str) else part:
                found |= called(each)
    return frozenset(found)


def multiplied(tree: Tree, names: frozenset[str]) -> Tree:
    """The tree with g(u + v) as g times u + v, for these names."""
    if tree[0] == "call" and tree[1] in names and len(tree[2]) == 1:
        return ("*", ("s", tree[1]), multiplied(tree[2][0], names))
    return tuple(multiplied(part, names) if isinstance(part, tuple) and part else part for part in tree)
