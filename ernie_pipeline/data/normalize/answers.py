"""Answers as they must stand in `\\boxed{}`: without the delimiters or the box that they came in."""

import re

import polars as pl

from ernie_pipeline.data.normalize.masked import apply_where

DELIMITERS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$", "$": "$"}
BOXES = ("\\boxed", "\\fbox")

# a LaTeX command, an escaped character (so "\{" is no brace and "\$" no delimiter), "$$", or any other character
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\$\$|.", re.DOTALL)

_ENCLOSED = r"^\s*(?:\\[(\[]|\$|\\fbox|\\boxed)|[\x1c-\x1f]"
"""How a text begins that something may enclose; or it has what is white space to Python, and none to Polars."""
_ONE_PAIR = r"(?s)^\\\((?:[^\\]|\\[^()\\])*\\\)$"
_SHALLOW = 4


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
    return rows.with_columns(answer=bare(pl.col("expected_answer")))


def bare(answer: pl.Expr) -> pl.Expr:
    r"""`bare_answer` as an expression. Python sees only what is neither plain nor in one simple pair of `\( \)`."""
    text = answer.str.strip_chars()
    return apply_where(answer, _may_be_enclosed, _opened).fill_null(text)


def is_balanced(text: pl.Expr) -> pl.Expr:
    """`balanced` as an expression. Python sees only what is nested deeper than a few levels, or has no partner."""
    return apply_where(text, lambda some: some.str.contains("[{}]"), _is_balanced, pl.Boolean).fill_null(True)


def _may_be_enclosed(answer: pl.Expr) -> pl.Expr:
    return answer.str.contains(_ENCLOSED)


def _opened(answer: pl.Expr) -> pl.Expr:
    text = answer.str.strip_chars()
    inner = text.str.slice(2, text.str.len_chars() - 4).str.strip_chars()
    is_simple = text.str.contains(_ONE_PAIR) & ~inner.str.contains(_ENCLOSED)
    opened = apply_where(pl.when(~is_simple).then(answer), pl.Expr.is_not_null, _by_python)
    return opened.fill_null(inner)


def _by_python(answer: pl.Expr) -> pl.Expr:
    return answer.map_elements(bare_answer, return_dtype=pl.String)


def _is_balanced(text: pl.Expr) -> pl.Expr:
    braces = text.str.replace_all(r"(?s)\\.|[^{}\\]+", "")
    for _ in range(_SHALLOW):
        braces = braces.str.replace_all("{}", "", literal=True)
    rest = pl.when(braces != "").then(text)
    return rest.map_elements(balanced, return_dtype=pl.Boolean).fill_null(True)


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
