r"""Where tokens are parted: at commas, joining words and relation signs outside of brackets."""

from collections.abc import Sequence

from ernie_pipeline.grading.tokens import Token

SIGNS = {
    "=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in", "to": "to",
    "equiv": "equiv", "notin": "notin", "sim": "to", "cong": "to", "propto": "to", "mapsto": "to", "subset": "to",
    "subseteq": "to", "parallel": "to", "perp": "to",
}  # fmt: skip
"""Tokens that relate two sides, by what they say; "to" stands for all that are compared as text."""


_OPEN = {"(": 1, "[": 1, "{": 1, "lbrace": 1, "langle": 1, "lfloor": 1, "lceil": 1}


_CLOSE = {")": 1, "]": 1, "}": 1, "rbrace": 1, "rangle": 1, "rfloor": 1, "rceil": 1}


SEPARATORS = frozenset([",", ";"])


JOINERS = {"and": "and", "or": "or", "wedge": "and", "vee": "or", "&": "and"}


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
        if depth == 0 and token.kind == "op" and text in SEPARATORS:
            parts.append([])
        elif depth == 0 and text in JOINERS:
            joiner = JOINERS[text]
            if parts[-1]:  # not after a comma: "1, 2, and 3"
                parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) > 1 and parts[0] and parts[0][0].text.lower() in ("either", "both"):
        parts[0] = parts[0][1:]
    return parts, joiner


def expand_signs(tokens: list[Token]) -> list[list[Token]]:
    r"""With `\pm` as plus, then as minus (`\mp` the other way); once, unchanged, where there is none."""
    if not any(token.text in ("pm", "mp") and token.kind == "cmd" for token in tokens):
        return [tokens]
    out = []
    for plus, minus in (("+", "-"), ("-", "+")):
        signs = {"pm": plus, "mp": minus}
        out.append([Token("op", signs[t.text], t.space) if t.kind == "cmd" and t.text in signs else t for t in tokens])
    return out


def split_relation(tokens: Sequence[Token]) -> tuple[list[list[Token]], list[str]]:
    """The sides of a chain of relations, and their signs."""
    sides: list[list[Token]] = [[]]
    signs: list[str] = []
    depth = 0
    for token in tokens:
        if token.kind in ("op", "cmd"):
            depth += _OPEN.get(token.text, 0) - _CLOSE.get(token.text, 0)
        if depth == 0 and token.text in SIGNS and token.kind in ("op", "cmd"):
            signs.append(SIGNS[token.text])
            sides.append([])
        else:
            sides[-1].append(token)
    return sides, signs
