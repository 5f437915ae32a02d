r"""Tokens to structure: lists, sets, tuples, intervals, relations, named values, matrices, cases, quantities, words.

One text has one reading, but for `12,345`, which is a number and a list of two (`readings`).
"""

from collections.abc import Callable
from fractions import Fraction

from ernie_pipeline.grading import regions, relations
from ernie_pipeline.grading.expression import parse_expression
from ernie_pipeline.grading.forms import (
    all_words,
    based,
    clock,
    congruence,
    cycles,
    dimensions,
    dots,
    empty,
    factor_of,
    number_set,
    one_congruence,
    ratio,
    trimmed,
    upright_units,
    weighted,
)
from ernie_pipeline.grading.quantities import read_leaf
from ernie_pipeline.grading.splitting import (
    SEPARATORS,
    closing,
    expand_signs,
    parted,
    split,
    split_relation,
    text_of,
)
from ernie_pipeline.grading.structure import (
    Bracket,
    Builder,
    Cases,
    Choice,
    Dots,
    Items,
    Leaf,
    Matrix,
    Named,
    Phrase,
    Unread,
    Value,
    Words,
)
from ernie_pipeline.grading.tokens import Token, Unreadable, tokenize
from ernie_pipeline.grading.word_set import word_set
from ernie_pipeline.grading.words import phrase, without_frame

_MATRICES = word_set("pmatrix bmatrix matrix Bmatrix smallmatrix array")


def read(tokens: list[Token]) -> Value:
    """The structure of a whole answer."""
    tokens = without_frame(tokens)
    while len(tokens) > 1 and tokens[0].text == "{" and closing(tokens, 0) == len(tokens) - 1:
        inner = tokens[1:-1]
        if split(inner, SEPARATORS)[1:]:
            return _set(inner)
        tokens = inner
    if not tokens:
        return Unread("")
    while len(tokens) > 1 and tokens[-1].kind == "op" and tokens[-1].text in (".", ",", ";"):
        tokens = tokens[:-1]
    if len(tokens) == 2 and tokens[0].kind == "let" and tokens[1].text == ")":
        tokens = tokens[:1]
    words = all_words(tokens)
    if words is not None:
        return words
    texts = [token.text for token in tokens]
    if "pmod" in texts and not ("or" in texts and ("=" in texts or texts.count("equiv") > 1)):
        found = congruence(tokens)
        if found is not None:
            return found
    tokens = _without_bracketed_domain(tokens)
    if "except" in texts and "pmod" not in texts:
        excepted = _union(tokens)
        if excepted is not None:
            return excepted
    systems = _systems(tokens)
    if systems is not None:
        return systems
    parts, joiner = parted(tokens)
    if len(parts) == 1:
        return read_one(parts[0])
    if any(not part for part in parts):
        return Unread(text_of(tokens))
    return _list([read_part(part) for part in parts], joiner)


def _systems(tokens: list[Token]) -> Value | None:
    """x = 1, y = 4 or x = 4, y = 1: each alternative is a whole."""
    for mark in ("or", ";", "and"):
        parts = split(tokens, frozenset([mark]))
        if len(parts) > 1 and all(parts):
            systems = [read(trimmed(part)) for part in parts]
            names = [
                sorted(item.name for item in each.items if isinstance(item, Named)) if isinstance(each, Items) else []
                for each in systems
            ]
            if len(names[0]) > 1 and all(each == names[0] for each in names):
                return Items("list", tuple(systems), "or")
    return None


def _without_bracketed_domain(tokens: list[Token]) -> list[Token]:
    r"""k\pi (k \in Z) as k\pi, k \in Z."""
    start = max((at for at, token in enumerate(tokens) if token.text == "("), default=0)
    if start == 0 or closing(tokens, start) != len(tokens) - 1:
        return tokens
    inner = tokens[start + 1 : -1]
    return [*tokens[:start], Token("op", ","), *inner] if any(token.text == "in" for token in inner) else tokens


def read_part(tokens: list[Token]) -> Value:
    """One element of a list: words, or what `read_one` reads."""
    words = all_words(tokens)
    return words if words is not None else read_one(without_frame(tokens))


def _list(items: list[Value], joiner: str) -> Value:
    flat: list[Value] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Items) and item.kind == "list" else [item])
    if any(isinstance(item, Dots) for item in flat):
        return Items("sequence", tuple(flat), joiner)
    one = one_congruence(flat)
    if one is not None:
        return one
    flat = regions.excluded(flat)
    joined = regions.joined(flat, joiner)
    if joined is not None:
        return joined
    return flat[0] if len(flat) == 1 else Items("list", tuple(flat), joiner)


def read_one(tokens: list[Token]) -> Value:
    """An answer that is no list."""
    for reader in _READERS:
        value = reader(tokens)
        if value is not None:
            return value
    return Unread(text_of(tokens))


def _set(inner: list[Token]) -> Value:
    builder = _builder(inner)
    if builder is not None:
        return builder
    if not inner:
        return Items("set", ())
    parts = split(inner, SEPARATORS)
    if any(not part for part in parts):
        return Unread("{" + text_of(inner))
    items: list[Value] = []
    for part in parts:
        item = read_part(part)
        items.extend(item.items if isinstance(item, Items) and item.kind == "list" else [item])
    return Items("sequence" if any(isinstance(i, Dots) for i in items) else "set", tuple(items))


def _builder(inner: list[Token]) -> Value | None:
    for mark in ("mid", "|", ":"):
        parts = split(inner, frozenset([mark]))
        if len(parts) == 2 and all(parts):
            element, condition = read_part(parts[0]), read(parts[1])
            return regions.built(element, condition) or Builder(element, condition)
    return None


def _environment(tokens: list[Token]) -> Value | None:
    at = [number for number, token in enumerate(tokens) if token.kind == "env"]
    if len(at) != 1:
        return None
    token = tokens[at[0]]
    if at[0] > 0 and tokens[at[0] - 1].text not in ("(", "[", "lbrace", "|", "vert", "="):
        return _scaled(tokens[: at[0]], tokens[at[0] :])
    before, after = text_of(tokens[: at[0]]), text_of(tokens[at[0] + 1 :])
    if (before, after) not in (("", ""), ("(", ")"), ("[", "]"), ("lbrace", ""), ("|", "|"), ("vert", "vert")):
        return None
    cells = [split(row, frozenset("&")) for row in split(tokenize(token.content), frozenset(["cr"]))]
    rows = [row for row in cells if any(row)]
    equations = all(len(row) == 1 and split_relation(row[0])[1] for row in rows)
    if (token.text in _MATRICES and not equations and before != "lbrace") or token.text in ("vmatrix", "Vmatrix"):
        kind = "det" if "v" in token.text.lower() or before in ("|", "vert") else "matrix"
        return Matrix(kind, tuple(tuple(read_part(cell) for cell in row) for row in rows))
    if all(len(row) == 1 for row in rows) or token.text in ("aligned", "align", "gathered", "split"):
        lines = [[token for cell in row for token in cell] for row in rows]
        return _list([read(line) for line in lines], "and")
    return Cases(tuple(tuple(_case(cell) for cell in row if cell) for row in rows))


def _scaled(factor: list[Token], rest: list[Token]) -> Value | None:
    """A number times a matrix."""
    matrix = _environment(rest)
    while factor and factor[-1].text in ("cdot", "times", "*"):
        factor = factor[:-1]
    if not isinstance(matrix, Matrix) or matrix.kind != "matrix":
        return None
    try:
        tree = parse_expression(factor) if [t.text for t in factor] != ["-"] else ("n", Fraction(-1))
    except Unreadable:
        return None
    cells = [cell for row in matrix.rows for cell in row]
    if not all(isinstance(cell, Leaf) for cell in cells):
        return None
    rows = [[Leaf(("*", tree, cell.tree)) for cell in row if isinstance(cell, Leaf)] for row in matrix.rows]
    return Matrix("matrix", tuple(tuple(row) for row in rows))


def _case(cell: list[Token]) -> Value:
    """A cell of a piecewise definition, without "if" and commas around it."""
    while cell and (cell[-1].text in (",", ";") or cell[-1].text == "."):
        cell = cell[:-1]
    while cell and cell[0].text.lower() in ("if", "for", "when", ","):
        cell = cell[1:]
    return read(cell)


def _bracketed(tokens: list[Token]) -> Value | None:
    """A set, a point, a vector or an interval between one pair of brackets; a column written as (1, 2)^T."""
    first = tokens[0].text
    if first == "]" or (tokens[-1].text == "[" and first == "["):  # the French way: ]0, 1[
        turned = {"]": "(", "[": "["}.get(first, first), {"[": ")", "]": "]"}.get(tokens[-1].text, "")
        return _bracketed([Token("op", turned[0]), *tokens[1:-1], Token("op", turned[1])]) if turned[1] else None
    if first not in ("(", "[", "lbrace", "langle", "{", "<") or tokens[0].kind not in ("op", "cmd"):
        return None
    if first == "<":
        end = len(tokens) - 1 if tokens[-1].text == ">" and len(tokens) > 3 else -1
    else:
        end = closing(tokens, 0)
    if end < 0:
        return None
    tail = "".join(token.text for token in tokens[end + 1 :] if token.text not in "{}")
    inner = tokens[1:end]
    while len(inner) > 2 and inner[0].text == "{" and closing(inner, 0) == len(inner) - 1:
        inner = inner[1:-1]
    if first == "lbrace" and not tail:
        return _set(inner)
    if tail not in ("", "^T", "^top", "^t", "^intercal"):
        return None
    parts = split(inner, SEPARATORS)
    if len(parts) < 2 or not all(parts):
        return None if tail or first != "(" or not inner else _inside(inner)
    items = tuple(read_part(part) for part in parts)
    if tail:
        return Matrix("matrix", tuple((item,) for item in items))
    return Bracket({"langle": "<"}.get(first, first), {"rangle": ">"}.get(tokens[end].text, tokens[end].text), items)


def _combination(tokens: list[Token]) -> Value | None:
    """(1, 2) + t(3, 4) and 3(1, 2): points added, and multiplied by numbers."""
    if not any(token.text in ("(", "langle") for token in tokens):
        return None
    terms: list[tuple[list[Token], list[Token]]] = []
    at = 0
    while at < len(tokens):
        start = next((n for n in range(at, len(tokens)) if tokens[n].text in ("(", "langle")), -1)
        end = closing(tokens, start) if start >= 0 else -1
        if end < 0 or len(split(tokens[start + 1 : end], SEPARATORS)) < 2:
            return None
        terms.append((tokens[at:start], tokens[start : end + 1]))
        at = end + 1
    points = [_bracketed(point) for _, point in terms]
    factors = [factor_of(factor, number == 0) for number, (factor, _) in enumerate(terms)]
    if (len(terms) == 1 and not terms[0][0]) or any(factor is None for factor in factors):
        return None
    items = [point.items for point in points if isinstance(point, Bracket)]
    if len(items) < len(points) or len({len(each) for each in items}) > 1:
        return None
    sums = [weighted([f for f in factors if f], column) for column in zip(*items, strict=True)]
    first = points[0]
    assert isinstance(first, Bracket)
    return None if None in sums else Bracket(first.opening, first.closing, tuple(each for each in sums if each))


def _labelled(tokens: list[Token]) -> Value | None:
    """A point with its letter, Q(4, -1), and a value behind words and a colon."""
    if tokens[0].kind == "let" and tokens[0].text.isupper() and len(tokens[0].text) == 1:
        point = _bracketed(tokens[1:]) if len(tokens) > 4 and tokens[1].text == "(" else None
        return Named(tokens[0].text, point) if isinstance(point, Bracket) else None
    at = next((number for number, token in enumerate(tokens) if token.kind != "word"), 0)
    if at and tokens[at].text == ":" and at + 1 < len(tokens):
        return Named("text " + " ".join(token.text.lower() for token in tokens[:at]), read_one(tokens[at + 1 :]))
    return None


def _inside(inner: list[Token]) -> Value | None:
    """What stands in brackets that group, where it is no plain expression."""
    try:
        parse_expression(inner)
    except Unreadable:
        value = read_one(inner)
        return None if isinstance(value, Unread | Phrase | Words) else value
    return None


def _union(tokens: list[Token]) -> Value | None:
    """Sets joined by a sign, or "real numbers except 7"."""
    for sign, rule in (("cup", regions.union), ("cap", regions.intersection)):
        parts = split(tokens, frozenset([sign]))
        if len(parts) > 1 and all(parts):
            return rule([read_one(part) for part in parts])
    signs = frozenset(["setminus", "except", "but"] + (["-"] if tokens[0].text == "setR" else []))
    parts = split(tokens, signs)
    if len(parts) == 2 and all(parts):
        left, right = read_part(parts[0]), read(parts[1])
        right = Items("set", (right,)) if isinstance(right, Leaf | Named) else right
        return regions.without(left, right)
    return None


def _choice(tokens: list[Token]) -> Value | None:
    """(B) 5, B) 5 or B. 5: a letter and what it stands for."""
    at = 1 if tokens[0].text == "(" else 0
    if len(tokens) < at + 3 or tokens[at].kind not in ("let", "word") or tokens[at].text not in "ABCDEFGHIJ":
        return None
    upright = tokens[at].roman or tokens[at].kind == "word"
    if tokens[at + 1].text != ")" and not (at == 0 and tokens[at + 1].text in (".", ":") and upright):
        return None
    rest = tokens[at + 2 :]
    if at == 1 and not rest[0].space and rest[0].kind == "op":
        return None
    return Choice(tokens[at].text, read(rest))


def _both_signs(tokens: list[Token]) -> Value | None:
    depth = 0
    for token in tokens:
        depth += (token.text == "lbrace") - (token.text == "rbrace")
        if token.kind == "cmd" and token.text in ("pm", "mp") and depth == 0:
            values = [read_part(one) for one in expand_signs(tokens)]
            return _list(values, ",") if not any(isinstance(v, Unread) for v in values) else None
    return None


def _relation(tokens: list[Token]) -> Value | None:
    return relations.read_relation(tokens, read_part, split_relation(tokens))


def _phrase(tokens: list[Token]) -> Value | None:
    """Words and mathematics by turns; quantities one after the other are parts of their own."""
    if not any(token.kind == "word" or token.roman for token in tokens):
        return None
    runs: list[list[Token]] = []
    for token in upright_units(tokens):
        if runs and (runs[-1][-1].kind == "word") == (token.kind == "word"):
            runs[-1].append(token)
        else:
            runs.append([token])
    if len(runs) == 1:
        return None
    pairs = [runs[at] + runs[at + 1] for at in range(0, len(runs) - 1, 2)]
    quantities = [read_leaf(pair) for pair in pairs] if len(runs) % 2 == 0 else []
    if quantities and all(quantities):
        return Phrase(tuple(quantity for quantity in quantities if quantity))
    parts: list[Value] = []
    for run in runs:
        parts.append(Words(phrase([t.text for t in run])) if run[0].kind == "word" else read_one(run))
    return Phrase(tuple(parts))


_READERS: tuple[Callable[[list[Token]], Value | None], ...] = (
    lambda tokens: None if tokens else Unread(""),
    lambda tokens: congruence(tokens) if any(token.text == "pmod" for token in tokens) else None,
    _both_signs,
    empty,
    dots,
    clock,
    _choice,
    _labelled,
    _environment,
    _relation,
    _union,
    number_set,
    cycles,
    _bracketed,
    based,
    ratio,
    dimensions,
    read_leaf,
    _combination,
    _phrase,
)
