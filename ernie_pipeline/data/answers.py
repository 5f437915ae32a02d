"""Answers as they must stand in `\\boxed{}`: without the delimiters or the box that they came in."""

import re

import polars as pl

DELIMITERS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$", "$": "$"}
BOXES = ("\\boxed", "\\fbox")

# a LaTeX command, an escaped character (so "\{" is no brace and "\$" no delimiter), "$$", or any other character
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\$\$|.", re.DOTALL)


def bare_answer(text: str) -> str:
    r"""The answer without what encloses the whole of it: `\( \)`, `\[ \]`, `$ $`, `$$ $$`, `\boxed{}`, `\fbox{}`.

    Outer ones first, repeatedly, with the white space around them: `\( \boxed{5} \)` is `5`. What does not enclose
    the whole stays: `$1$ and $2$`, `\boxed{1}, \boxed{2}`.
    """
    text = text.strip()
    while (inner := _unwrapped(text)) is not None:
        text = inner.strip()
    return text


def with_answer(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the column `answer`: the bare `expected_answer`, null where that is null."""
    answer = pl.col("expected_answer").map_elements(bare_answer, return_dtype=pl.String)
    return rows.with_columns(answer=answer)


def balanced(text: str) -> bool:
    r"""Whether every brace has its partner, so that the text can stand in `\boxed{}` and be read back."""
    depth = 0
    for token in _TOKEN.findall(text):
        depth += _step(token)
        if depth < 0:
            return False
    return depth == 0


def _unwrapped(text: str) -> str | None:
    """What is left when the outermost enclosure goes; None when nothing encloses the whole."""
    if not text.startswith(("\\", "$")):
        return None
    tokens = _TOKEN.findall(text)
    if tokens[0] in BOXES:
        return _in_braces(tokens[1:])
    closing = DELIMITERS.get(tokens[0])
    inner = tokens[1:-1]
    if len(tokens) < 2 or tokens[-1] != closing or not _ends_of(tokens[0]).isdisjoint(inner):
        return None
    return "".join(inner)


def _ends_of(opening: str) -> set[str]:
    """The tokens that cannot stand inside a pair of this opening without ending it."""
    return {"$", "$$"} if opening.startswith("$") else {opening, DELIMITERS[opening]}


def _in_braces(tokens: list[str]) -> str | None:
    """What stands in `{...}` when its first brace is closed by the very last token."""
    depth = 0
    for position, token in enumerate(tokens):
        depth += _step(token)
        if depth == 0:  # at the last token: the whole is enclosed; before the brace or after it: something is outside
            return "".join(tokens[1:-1]) if position == len(tokens) - 1 and token == "}" else None
    return None


def _step(token: str) -> int:
    return 1 if token == "{" else -1 if token == "}" else 0
