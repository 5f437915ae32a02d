r"""Answers of one fixed form, with nothing nested in them: words, times, ratios, bases, congruences, cycles."""

import re
from fractions import Fraction

from ernie_pipeline.grading.expression import parse_expression
from ernie_pipeline.grading.number_sets import by_letter, by_words
from ernie_pipeline.grading.quantities import read_leaf
from ernie_pipeline.grading.spelled import spelled_number
from ernie_pipeline.grading.splitting import JOINERS, SEPARATORS, expand_signs, parted, split, text_of
from ernie_pipeline.grading.structure import (
    Based,
    Clock,
    Congruence,
    Dots,
    Items,
    Leaf,
    Ratio,
    Unread,
    Value,
    Words,
)
from ernie_pipeline.grading.tokens import Token, Unreadable, number_token
from ernie_pipeline.grading.tree import Tree
from ernie_pipeline.grading.word_set import word_set
from ernie_pipeline.grading.words import phrase

_SETS = word_set("setR setZ setQ setN setC")


_SHAPES = word_set("matrix matrices grid board array table rectangle lattice chessboard")


_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "sixteen": 16}


def all_words(tokens: list[Token]) -> Value | None:
    """Words where there is nothing else, or a single run of letters: VI, BACD; None otherwise."""
    if len(tokens) == 1 and tokens[0].kind == "run":
        run = tokens[0].text
        return None if len(run) == 2 and not run.isupper() else Words(phrase((run,)), run)
    if not tokens or not any(token.kind == "word" for token in tokens):
        return None
    if any(token.text.lower() in JOINERS or token.text == "," for token in tokens):
        return None
    plain = all(token.kind in ("word", "let", "run") or token.text in ("-", "'", ".") for token in tokens)
    if not plain:
        return None
    if any(token.kind == "let" and not token.roman and len(tokens) < 4 and tokens[0] == token for token in tokens):
        return None
    words = [token.text for token in tokens if token.kind != "op"]
    bare = words[:-1] if tokens[-1].kind == "let" and len(words) > 2 else words
    named = by_words(phrase(bare))
    if named is not None:
        return named
    number = spelled_number(words)
    return Leaf(("n", number)) if number is not None else Words(phrase(words), " ".join(words))


def empty(tokens: list[Token]) -> Value | None:
    return Items("set", ()) if len(tokens) == 1 and tokens[0].text == "emptyset" else None


def dots(tokens: list[Token]) -> Value | None:
    text = "".join(token.text for token in tokens)
    return Dots() if text in ("ldots", "...") else None


def number_set(tokens: list[Token]) -> Value | None:
    """R and the like, as letters."""
    if not tokens or tokens[0].text not in _SETS:
        return None
    tail = "".join(token.text for token in tokens[1:] if token.text not in "{}")
    if len(tokens) > 1 and tokens[1].text not in ("^", "_"):
        return None
    return by_letter(tokens[0].text.removeprefix("set"), tail)


def cycles(tokens: list[Token]) -> Value | None:
    """A permutation in cycles, (1 3 2)(4 5): each from its smallest element on, in their order."""
    if tokens[0].text != "(" or len(tokens) < 4:
        return None
    found: list[list[int]] = []
    for token in tokens:
        if token.text == "(":
            found.append([])
        elif token.kind == "num" and token.text.isdigit():
            found[-1].append(int(token.text))
        elif token.text != ")":
            return None
    if any(len(cycle) < 2 for cycle in found):
        return None
    turned = sorted(cycle[cycle.index(min(cycle)) :] + cycle[: cycle.index(min(cycle))] for cycle in found)
    return Unread(f"cycles {turned}")


def clock(tokens: list[Token]) -> Value | None:
    texts = [token.text.lower() for token in tokens]
    if len(texts) == 2 and texts[1] == "o'clock":
        texts = [texts[0], ":", "00"]
    half = texts.pop() if texts and texts[-1] in ("am", "pm") else ""
    if len(texts) == 3 and texts[1] == ":" and all(t.isdigit() for t in texts[::2]) and len(texts[2]) == 2:
        hours, minutes = int(texts[0]), int(texts[2])
    elif half and len(texts) == 1 and texts[0].isdigit():
        hours, minutes = int(texts[0]), 0
    else:
        return None
    if hours > 24 or minutes > 59:
        return None
    if half:
        hours = hours % 12 + (12 if half == "pm" else 0)
    return Clock(Fraction(60 * hours + minutes), half)


def ratio(tokens: list[Token]) -> Value | None:
    texts = [token.text.lower() for token in tokens]
    if texts[1:-1] in (["in"], ["out", "of"]) and tokens[0].kind == tokens[-1].kind == "num":
        return Leaf(("/", ("n", tokens[0].value), ("n", tokens[-1].value)))
    parts = split(tokens, frozenset([":", "to"]))
    if len(parts) < 2 or not all(parts):
        return None
    values = tuple(read_leaf(part) for part in parts)
    return Ratio(tuple(value for value in values if value)) if all(values) else None


def dimensions(tokens: list[Token]) -> Value | None:
    """4 ft x 12 ft or 8 m by 6 m: lengths beside each other; of a shape ("a 3 x 4 matrix") only the same text."""
    words = [token.text.lower() for token in tokens if token.kind == "word"]
    parts = split(tokens, frozenset(["times", "by", "x"]))
    if len(parts) < 2 or not words or not all(parts):
        return None
    if _SHAPES & set(words):
        return Unread(text_of(tokens))
    leaves = [read_leaf(part) for part in parts]
    if not all(leaf is not None and leaf.unit is not None for leaf in leaves):
        return None
    return Items("list", tuple(leaf for leaf in leaves if leaf is not None), "by")


def based(tokens: list[Token]) -> Value | None:
    text = "".join(token.text for token in tokens if token.text not in "{}()")
    found = re.fullmatch(r"([0-9A-Z]+)_(?:base)?(\d+|[a-z]+)", text)
    if found is None or not (any(c.isdigit() for c in found[1]) or len(found[1]) > 1 or tokens[0].text == "("):
        return None
    base = int(found[2]) if found[2].isdigit() else _BASES.get(found[2], 0)
    if base == 10 and found[1].isdigit():
        return Leaf(("n", number_token(found[1]).value))
    fits = 2 <= base <= 36 and all(int(digit, 36) < base for digit in found[1])
    if not fits and base > 10 and len(found[1]) > 1:
        return Unread(f"{found[1]} in base {base}")  # letters that are no digits there
    return Based(found[1].lstrip("0") or "0", base) if fits else None


def congruence(tokens: list[Token]) -> Value | None:
    at = next((number for number, token in enumerate(tokens) if token.text == "pmod"), -1)
    if at <= 0:
        return None
    before = tokens[:at]
    if before[-1].text in ("(", ","):
        before = before[:-1]
    modulus = [token for token in tokens[at + 1 :] if token.text not in "(){}"]
    sides = split(before, frozenset(["equiv", "="]))
    left = text_of(sides[0]) if len(sides) == 2 else ""
    residues = [expanded for part in split(sides[-1], SEPARATORS) for expanded in expand_signs(part)]
    joined = [piece for residue in residues for piece in parted(residue)[0]]
    try:
        trees = tuple(parse_expression(residue) for residue in joined)
        return Congruence(left, trees, parse_expression(modulus))
    except Unreadable:
        return None


def trimmed(tokens: list[Token]) -> list[Token]:
    while tokens and tokens[-1].text in (",", ";"):
        tokens = tokens[:-1]
    return tokens


def one_congruence(items: list[Value]) -> Congruence | None:
    """x = 1 (mod 4), x = 3 (mod 4) as one congruence with two residues."""
    found = [item for item in items if isinstance(item, Congruence)]
    first = found[0] if found else None
    if first is None or len(found) < len(items):
        return None
    if any((each.left, each.modulus) != (first.left, first.modulus) for each in found):
        return None
    return Congruence(first.left, tuple(tree for each in found for tree in each.residues), first.modulus)


def factor_of(tokens: list[Token], first: bool) -> Tree | None:
    """What stands before a point: a sign and a number or symbol."""
    sign = ("n", Fraction(-1 if tokens and tokens[0].text == "-" else 1))
    if tokens and tokens[0].text in ("+", "-"):
        tokens = tokens[1:]
    elif not first:
        return None
    while tokens and tokens[-1].text in ("cdot", "times", "*"):
        tokens = tokens[:-1]
    try:
        return ("*", sign, parse_expression(tokens)) if tokens else sign
    except Unreadable:
        return None


def weighted(factors: list[Tree], column: tuple[Value, ...]) -> Leaf | None:
    total: Tree | None = None
    for factor, cell in zip(factors, column, strict=True):
        if not isinstance(cell, Leaf):
            return None
        term: Tree = ("*", factor, cell.tree)
        total = term if total is None else ("+", total, term)
    return Leaf(total) if total is not None else None


def upright_units(tokens: list[Token]) -> list[Token]:
    """2 h 40 min with h as a word."""
    return [
        token._replace(kind="word") if number and token.roman and tokens[number - 1].kind == "num" else token
        for number, token in enumerate(tokens)
    ]
