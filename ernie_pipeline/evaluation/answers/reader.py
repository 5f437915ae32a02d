r"""Tokens to structure: lists, sets, tuples, intervals, relations, named values, matrices, cases, quantities, words.

One text has one reading, but for `12,345`, which is a number and a list of two (`readings`).
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from ernie_pipeline.evaluation.answers import relations
from ernie_pipeline.evaluation.answers.expression import parse_expression
from ernie_pipeline.evaluation.answers.normalize import normalize
from ernie_pipeline.evaluation.answers.quantities import read_leaf
from ernie_pipeline.evaluation.answers.structure import (
    Based,
    Bracket,
    Builder,
    Cases,
    Choice,
    Clock,
    Congruence,
    Dots,
    Items,
    Leaf,
    Matrix,
    Named,
    NumberSet,
    Phrase,
    Ratio,
    Region,
    Unread,
    Value,
    Words,
)
from ernie_pipeline.evaluation.answers.tokens import Token, Unreadable, number_token, tokenize
from ernie_pipeline.evaluation.answers.words import phrase, spelled_number, without_frame

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
LONGEST, DEEPEST = 4000, 40
"""Characters and nested brackets up to which a text is read; what has more is equal to the same text alone."""

_OPEN = {"(": 1, "[": 1, "{": 1, "lbrace": 1, "langle": 1, "lfloor": 1, "lceil": 1}
_CLOSE = {")": 1, "]": 1, "}": 1, "rbrace": 1, "rangle": 1, "rfloor": 1, "rceil": 1}
_SEPARATORS = frozenset([",", ";"])
_JOINERS = {"and": "and", "or": "or", "wedge": "and", "vee": "or", "&": "and"}
_SETS = frozenset("setR setZ setQ setN setC".split())
_MATRICES = frozenset("pmatrix bmatrix matrix Bmatrix smallmatrix array".split())
_SHAPES = frozenset("matrix matrices grid board array table rectangle lattice chessboard".split())
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "sixteen": 16}


@lru_cache(maxsize=8192)
def readings(text: str) -> tuple[Value, ...]:
    """What the normalised text of an answer says: one reading, or two where a comma may group digits."""
    if len(text) > LONGEST or _nesting(text) > DEEPEST:
        return (Unread(re.sub(r"\s", "", text)),)
    joined = _GROUPED.sub(_without_commas, text)
    first = _read_text(joined)
    return (first,) if joined == text else (first, _read_text(text))


def _without_commas(found: re.Match[str]) -> str:
    """A grouped number; (1,100) and {1,100} are pairs."""
    text, start, end = found.string, found.start(), found.end()
    paired = text[:start].rstrip()[-1:] in ("(", "[") or text[:start].rstrip().endswith(r"\{")
    alone = paired and text[end:].lstrip()[:1] in (")", "]", "\\")
    return found[0] if alone else found[0].replace(",", "")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _read_text(text: str) -> Value:
    try:
        return read(tokenize(text))
    except Unreadable:
        return Unread(re.sub(r"\s", "", text))
    except (ValueError, RecursionError, MemoryError):
        return Unread(re.sub(r"\s", "", text))


def read_answer(text: str) -> tuple[Value, ...]:
    """`readings` of a text as a model or a person wrote it."""
    return readings(normalize(text))


def read(tokens: list[Token]) -> Value:
    """The structure of a whole answer."""
    tokens = without_frame(tokens)
    while len(tokens) > 1 and tokens[0].text == "{" and closing(tokens, 0) == len(tokens) - 1:
        inner = tokens[1:-1]
        if split(inner, _SEPARATORS)[1:]:
            return _set(inner)
        tokens = inner
    if not tokens:
        return Unread("")
    if len(tokens) == 2 and tokens[0].kind == "let" and tokens[1].text == ")":
        tokens = tokens[:1]
    words = all_words(tokens)
    if words is not None:
        return words
    if any(token.text in ("pmod", "equiv") for token in tokens) and not any(t.text == "or" for t in tokens):
        congruence = _congruence(tokens)
        if congruence is not None:
            return congruence
    tokens = _without_bracketed_domain(tokens)
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
            systems = [read(_trimmed(part)) for part in parts]
            names = [
                sorted(item.name for item in each.items if isinstance(item, Named)) if isinstance(each, Items) else []
                for each in systems
            ]
            if len(names[0]) > 1 and all(each == names[0] for each in names):
                return Items("list", tuple(systems), "or")
    return None


def _trimmed(tokens: list[Token]) -> list[Token]:
    while tokens and tokens[-1].text in (",", ";"):
        tokens = tokens[:-1]
    return tokens


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
    flat = relations.excluded(flat)
    joined = relations.joined(flat, joiner)
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


def text_of(tokens: Sequence[Token]) -> str:
    """Tokens in one spelling, for comparison as text."""
    return " ".join(token.text + token.content.replace(" ", "") for token in tokens if token.text not in "{}")


def closing(tokens: Sequence[Token], start: int) -> int:
    """Where the bracket that opens at `start` closes; any closing one will do: [1, 2) is one. -1 if it does not."""
    depth = 0
    for at in range(start, len(tokens)):
        if tokens[at].kind in ("op", "cmd"):
            depth += _OPEN.get(tokens[at].text, 0) - _CLOSE.get(tokens[at].text, 0)
        if depth == 0:
            return at
    return -1


def split(tokens: Sequence[Token], at: frozenset[str]) -> list[list[Token]]:
    """The parts between top-level tokens of these texts."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.kind in ("op", "cmd"):
            depth += _OPEN.get(token.text, 0) - _CLOSE.get(token.text, 0)
        if depth == 0 and token.text in at and token.kind != "let":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def parted(tokens: list[Token]) -> tuple[list[list[Token]], str]:
    """The elements of a list and what joins them: ",", "and" or "or"."""
    parts: list[list[Token]] = [[]]
    depth, joiner = 0, ","
    for token in tokens:
        if token.kind in ("op", "cmd"):
            depth += _OPEN.get(token.text, 0) - _CLOSE.get(token.text, 0)
        text = token.text.lower() if token.kind in ("word", "cmd", "op") else ""
        if depth == 0 and token.kind == "op" and text in _SEPARATORS:
            parts.append([])
        elif depth == 0 and text in _JOINERS:
            joiner = _JOINERS[text]
            if parts[-1]:  # not after a comma: "1, 2, and 3"
                parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) > 1 and parts[0] and parts[0][0].text.lower() in ("either", "both"):
        parts[0] = parts[0][1:]
    return parts, joiner


def all_words(tokens: list[Token]) -> Value | None:
    """Words where there is nothing else, or a single run of letters: VI, BACD; None otherwise."""
    if len(tokens) == 1 and tokens[0].kind == "run":
        run = tokens[0].text
        return None if len(run) == 2 and not run.isupper() else Words(phrase((run,)), run)
    if not tokens or not any(token.kind == "word" for token in tokens):
        return None
    if any(token.text.lower() in _JOINERS or token.text == "," for token in tokens):
        return None
    plain = all(token.kind in ("word", "let", "run") or token.text in ("-", "'", ".") for token in tokens)
    if not plain:
        return None
    if any(token.kind == "let" and not token.roman and len(tokens) < 4 and tokens[0] == token for token in tokens):
        return None
    words = [token.text for token in tokens if token.kind != "op"]
    if phrase(words) in (("all", "real", "number"), ("all", "real"), ("real", "number")):
        return relations.REALS
    number = spelled_number(words)
    return Leaf(("n", number)) if number is not None else Words(phrase(words), " ".join(words))


def _set(inner: list[Token]) -> Value:
    builder = _builder(inner)
    if builder is not None:
        return builder
    if not inner:
        return Items("set", ())
    parts = split(inner, _SEPARATORS)
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
            return relations.built(element, condition) or Builder(element, condition)
    return None


def _empty(tokens: list[Token]) -> Value | None:
    return Items("set", ()) if len(tokens) == 1 and tokens[0].text == "emptyset" else None


def _dots(tokens: list[Token]) -> Value | None:
    text = "".join(token.text for token in tokens)
    return Dots() if text in ("ldots", "...") else None


def _number_set(tokens: list[Token]) -> Value | None:
    """R and the like, as letters."""
    if not tokens or tokens[0].text not in _SETS:
        return None
    tail = "".join(token.text for token in tokens[1:] if token.text not in "{}")
    if len(tokens) > 1 and tokens[1].text not in ("^", "_"):
        return None
    name = tokens[0].text.removeprefix("set")
    return relations.REALS if name == "R" and not tail else NumberSet(name + tail)


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
    if token.text in _MATRICES and not equations and before != "lbrace" or token.text in ("vmatrix", "Vmatrix"):
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
    parts = split(inner, _SEPARATORS)
    if len(parts) < 2 or not all(parts):
        return None if tail or first != "(" or not inner else _inside(inner)
    items = tuple(read_part(part) for part in parts)
    if tail:
        return Matrix("matrix", tuple((item,) for item in items))
    return Bracket({"langle": "<"}.get(first, first), {"rangle": ">"}.get(tokens[end].text, tokens[end].text), items)


def _labelled(tokens: list[Token]) -> Value | None:
    """A point with its letter, Q(4, -1), and a value behind words and a colon."""
    if tokens[0].kind == "let" and tokens[0].text.isupper() and len(tokens[0].text) == 1 and tokens[0].text != "C":
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


def _cycles(tokens: list[Token]) -> Value | None:
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


def _union(tokens: list[Token]) -> Value | None:
    parts = split(tokens, frozenset(["cup"]))
    if len(parts) > 1 and all(parts):
        return relations.union([read_one(part) for part in parts])
    parts = split(tokens, frozenset(["setminus"]))
    if len(parts) == 2 and all(parts):
        return relations.without(read_one(parts[0]), read_one(parts[1]))
    return None


def _clock(tokens: list[Token]) -> Value | None:
    texts = [token.text.lower() for token in tokens]
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


def _ratio(tokens: list[Token]) -> Value | None:
    texts = [token.text.lower() for token in tokens]
    if texts[1:-1] in (["in"], ["out", "of"]) and tokens[0].kind == tokens[-1].kind == "num":
        return Leaf(("/", ("n", tokens[0].value), ("n", tokens[-1].value)))
    parts = split(tokens, frozenset([":", "to"]))
    if len(parts) < 2 or not all(parts):
        return None
    values = tuple(read_leaf(part) for part in parts)
    return Ratio(tuple(value for value in values if value)) if all(values) else None


def _dimensions(tokens: list[Token]) -> Value | None:
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


def _based(tokens: list[Token]) -> Value | None:
    text = "".join(token.text for token in tokens if token.text not in "{}()")
    found = re.fullmatch(r"([0-9A-Z]+)_(?:base)?(\d+|[a-z]+)", text)
    if found is None or not (any(c.isdigit() for c in found[1]) or len(found[1]) > 1 or tokens[0].text == "("):
        return None
    base = int(found[2]) if found[2].isdigit() else _BASES.get(found[2], 0)
    if base == 10 and found[1].isdigit():
        return Leaf(("n", number_token(found[1]).value))
    fits = 2 <= base <= 36 and all(int(digit, 36) < base for digit in found[1])
    return Based(found[1].lstrip("0") or "0", base) if fits else None


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


def _congruence(tokens: list[Token]) -> Value | None:
    at = next((number for number, token in enumerate(tokens) if token.text == "pmod"), -1)
    if at <= 0:
        return None
    before = tokens[:at]
    if before[-1].text in ("(", ","):
        before = before[:-1]
    modulus = [token for token in tokens[at + 1 :] if token.text not in "(){}"]
    sides = split(before, frozenset(["equiv", "="]))
    left = text_of(sides[0]) if len(sides) == 2 else ""
    residues = [expanded for part in split(sides[-1], _SEPARATORS) for expanded in expand_signs(part)]
    joined = [piece for residue in residues for piece in parted(residue)[0]]
    try:
        trees = tuple(parse_expression(residue) for residue in joined)
        return Congruence(left, trees, parse_expression(modulus))
    except Unreadable:
        return None


def expand_signs(tokens: list[Token]) -> list[list[Token]]:
    r"""With `\pm` as plus, then as minus (`\mp` the other way); once, unchanged, where there is none."""
    if not any(token.text in ("pm", "mp") and token.kind == "cmd" for token in tokens):
        return [tokens]
    out = []
    for plus, minus in (("+", "-"), ("-", "+")):
        signs = {"pm": plus, "mp": minus}
        out.append([Token("op", signs[t.text], t.space) if t.kind == "cmd" and t.text in signs else t for t in tokens])
    return out


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


def split_relation(tokens: Sequence[Token]) -> tuple[list[list[Token]], list[str]]:
    """The sides of a chain of relations, and their signs."""
    sides: list[list[Token]] = [[]]
    signs: list[str] = []
    depth = 0
    for token in tokens:
        if token.kind in ("op", "cmd"):
            depth += _OPEN.get(token.text, 0) - _CLOSE.get(token.text, 0)
        if depth == 0 and token.text in relations.SIGNS and token.kind in ("op", "cmd"):
            signs.append(relations.SIGNS[token.text])
            sides.append([])
        else:
            sides[-1].append(token)
    return sides, signs


def _upright_units(tokens: list[Token]) -> list[Token]:
    """2 h 40 min with h as a word."""
    return [
        token._replace(kind="word") if number and token.roman and tokens[number - 1].kind == "num" else token
        for number, token in enumerate(tokens)
    ]


def _phrase(tokens: list[Token]) -> Value | None:
    """Words and mathematics by turns; quantities one after the other are parts of their own."""
    if not any(token.kind == "word" or token.roman for token in tokens):
        return None
    runs: list[list[Token]] = []
    for token in _upright_units(tokens):
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
    lambda tokens: _congruence(tokens) if any(token.text == "pmod" for token in tokens) else None,
    _both_signs,
    _empty,
    _dots,
    _clock,
    _choice,
    _labelled,
    _environment,
    _relation,
    _union,
    _number_set,
    _cycles,
    _bracketed,
    _based,
    _ratio,
    _dimensions,
    read_leaf,
    _phrase,
)
__all__ = ["Region", "read", "read_answer", "readings"]
