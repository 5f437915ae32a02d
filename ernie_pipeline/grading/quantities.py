r"""Expressions with their units: what is one number, or one formula, and what is counted or measured by it."""

from fractions import Fraction
from typing import Literal

from ernie_pipeline.grading.expression import parse_expression
from ernie_pipeline.grading.spelled import spelled_number
from ernie_pipeline.grading.structure import Leaf
from ernie_pipeline.grading.tokens import Token, Unreadable
from ernie_pipeline.grading.tree import Tree
from ernie_pipeline.grading.units import FACTORS, ROMAN_LETTERS, Unit, parse_unit

_MONEY = {"$": "dollar", "euro": "euro", "pound": "pound_sterling", "yen": "yen", "rupee": "rupee"}
_CODES = {"rs": "rupee", "inr": "rupee", "usd": "dollar", "eur": "euro", "gbp": "pound_sterling"}
_UNIT_SIGNS = frozenset(["/", "^", "{", "}", "-", "cdot", "*", ".", "(", ")"])
_DEGREE = Unit(Fraction(1), (("angle", 1),))


def read_leaf(tokens: list[Token]) -> Leaf | None:
    """An expression, perhaps with a unit behind it or a currency before or behind it; None for anything else."""
    money, tokens = _money(tokens)
    if not tokens:
        return None
    at = _unit_start(tokens)
    words: list[str] = []
    if money and at is not None and tokens[at].text in ("/", "per", "a", "an", "each"):
        words, tokens, at = _unit_words(tokens[at:]), tokens[:at], None  # $15 per hour
        words = [] if words == ["each"] else words
    try:
        leaf = _leaf(tokens) if at is None else _with_unit(tokens[:at], tokens[at:])
    except Unreadable:
        return None
    if leaf is None or money is None:
        return leaf
    unit = parse_unit((money, *words))
    if leaf.unit is not None and leaf.unit != unit:
        return None
    return None if unit is None else Leaf(leaf.tree, unit, leaf.places)


def _money(tokens: list[Token]) -> tuple[str | None, list[Token]]:
    if len(tokens) > 1 and tokens[0].text.lower() in _CODES and tokens[0].kind in ("word", "run"):
        return _CODES[tokens[0].text.lower()], tokens[2:] if tokens[1].text == "." else tokens[1:]
    for at in (0, 1):
        if len(tokens) > at + 1 and tokens[at].text in _MONEY and (at == 0 or tokens[0].text == "-"):
            return _MONEY[tokens[at].text], tokens[:at] + tokens[at + 1 :]
    if len(tokens) > 1 and tokens[-1].text.lower() in _CODES and tokens[-1].text.isupper():
        return _CODES[tokens[-1].text.lower()], tokens[:-1]
    if len(tokens) > 1 and tokens[-1].text in _MONEY:
        return _MONEY[tokens[-1].text], tokens[:-1]
    return None, tokens


def _leaf(tokens: list[Token]) -> Leaf:
    tree = parse_expression(tokens)
    unit: Unit | Literal["%"] | None = None
    inner, negative = (tree[1], True) if tree[0] == "neg" else (tree, False)
    if inner[0] in ("%", "deg"):
        unit = "%" if inner[0] == "%" else _DEGREE
        tree = ("neg", inner[1]) if negative else inner[1]
    bare = [token for token in tokens if token.text not in ("-", "+", "%", "deg", "{", "}", "(", ")")]
    places = bare[0].places if len(bare) == 1 else None
    return Leaf(tree, unit, places)


def _unit_start(tokens: list[Token]) -> int | None:
    """Where the unit begins: the first token of its kind after which all are; None where there is none."""
    for at, token in enumerate(tokens):
        if _begins_unit(tokens, at):
            at -= at > 1 and tokens[at - 1].text == "/" and tokens[at - 2].kind == "num"
            rest = tokens[at:]
            return at if at and all(_in_unit(rest, number) for number in range(len(rest))) else None
        if token.kind == "word":
            return None
    return None


def _begins_unit(tokens: list[Token], at: int) -> bool:
    token = tokens[at]
    if token.kind == "word":
        return True
    if token.kind == "let" and token.roman:
        known = token.text in ROMAN_LETTERS and at > 0
        return known and (tokens[at - 1].kind == "num" or token.space or tokens[at - 1].text in ("}", ")", "degree"))
    if token.text == "degree" and at + 1 < len(tokens):
        return tokens[at + 1].text in ("C", "F", "Celsius", "Fahrenheit", "celsius", "fahrenheit")
    return token.text == "frac" and at > 0 and at + 2 < len(tokens) and _is_unit_word(tokens[at + 2])


def _is_unit_word(token: Token) -> bool:
    return token.kind == "word" or (token.kind == "let" and token.roman and token.text in ROMAN_LETTERS)


def _in_unit(rest: list[Token], number: int) -> bool:
    token = rest[number]
    if token.kind == "word" or (token.kind == "let" and (token.roman or token.text in "CF")):
        return True
    if token.kind == "num":
        plain = rest[number - 1].kind == "word" and token.text in ("2", "3") and number == len(rest) - 1
        return rest[number - 1].text in ("^", "{", "-") or plain
    return token.text in _UNIT_SIGNS or token.text in ("degree", "frac")


def _with_unit(value: list[Token], rest: list[Token]) -> Leaf | None:
    words = _unit_words(rest)
    factor = Fraction(1)
    while words and words[0].lower() in FACTORS:
        factor *= FACTORS[words.pop(0).lower()]
    if words[:1] == ["of"]:
        words.pop(0)
    leaf = _value(value)
    if leaf is None:
        return None
    if leaf.unit is not None and words:
        return None
    tree: Tree = leaf.tree if factor == 1 else ("*", leaf.tree, ("n", factor))
    if not words:
        return Leaf(tree, leaf.unit, leaf.places if factor == 1 else None)
    if [word.lower() for word in words] in (["percent"], ["per", "cent"]):
        return Leaf(tree, "%", leaf.places)
    unit = parse_unit(tuple(words))
    return None if unit is None else Leaf(tree, unit, leaf.places if factor == 1 else None)


def _value(tokens: list[Token]) -> Leaf | None:
    number = spelled_number([token.text for token in tokens]) if all(t.kind == "word" for t in tokens) else None
    return Leaf(("n", number)) if number is not None else _leaf(tokens)


def _unit_words(rest: list[Token]) -> list[str]:
    """Unit tokens as the words that `parse_unit` takes."""
    words: list[str] = []
    power = ""
    for number, token in enumerate(rest):
        if token.text == "frac":
            continue
        if token.text == "}" and number + 1 < len(rest) and rest[number + 1].text == "{" and rest[0].text == "frac":
            words.append("/")
        elif token.text == "^":
            power = "^"
        elif token.text == "-" and power:
            power += "-"
        elif token.kind == "num":
            words.append((power or "^") + token.text)
            power = ""
        elif token.text == "degree":
            words.append("deg")
        elif token.text == ".":
            continue
        elif token.text in ("cdot", "*"):
            words.append("*")
        elif token.text == "-":
            words.append("-")
        elif token.text not in "{}()":
            words.append(token.text)
    if words[:1] == ["deg"] and len(words) > 1:
        words = ["celsius" if words[1].lower().startswith("c") else "fahrenheit", *words[2:]]
    return words
