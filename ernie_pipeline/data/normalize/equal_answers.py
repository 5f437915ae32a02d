r"""One form for bare answers that are equal beyond doubt, however they are written; no algebra.

Taken for equal: spellings (`spelling.ANSWER`: delimiters, spaces, `\left`, `\dfrac`), `\text{}` around a word, a full
stop at the end, `x^{2}` and `x^2`, `50\%` and `50%`, `x =` of one letter before an answer that is no letter itself,
and a number written as `1,625`, `1{,}625`, `1625`, `1625.0`, `\frac{3250}{2}`, `3250/2`, `\frac12` or `-.5`: an exact
rational. All else stays as it stands: `5t` and `5`, `5\%` and `0.05`, `{1,2}` and `{2,1}` remain different answers.
"""

import re
from fractions import Fraction

import polars as pl

from ernie_pipeline.data.normalize import spelling

MOST_DIGITS = 40
"""Of a number that is read as such: the cost of an exact fraction grows with the square of its digits."""

_TEXT = r"\\(?:text|mathrm|textbf|mbox|textrm)\{([^{}\\]*)\}"
_NAME = r"^\\?[A-Za-z]=([^=<>]*[\d\\][^=<>]*)$"
_SHORT_FRACTION = r"\\frac(\d)(\d)"

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<whole>{_DECIMAL})|(?P<over>{_DECIMAL})/(?P<under>{_DECIMAL})"
    rf"|\\frac\{{(?P<top>-?{_DECIMAL})\}}\{{(?P<below>-?{_DECIMAL})\}})"
)
_MAY_BE_A_NUMBER = r"^[-+\d.,/{}\\frac]*\d[-+\d.,/{}\\frac]*$"


def equal_form(answer: pl.Expr) -> pl.Expr:
    """The form of each bare answer; null for null. Python sees only what may be a number, each distinct one once."""
    plain = _plain(answer)
    number = pl.when(plain.str.contains(_MAY_BE_A_NUMBER)).then(plain)
    return number.map_batches(_rationals, return_dtype=pl.String, is_elementwise=True).fill_null(plain)


def _plain(answer: pl.Expr) -> pl.Expr:
    spelled = (
        answer.str.replace_all(_TEXT, "$1")
        .str.replace_many(spelling.ANSWER_WITHOUT_DOLLARS, leftmost=True)
        .str.replace_all(r"\s+", "")
        .str.strip_suffix(".")
        .str.replace(_NAME, "$1")
        .str.replace_all(r"\\%", "%")
        .str.replace_all(r"\^\{(\w)\}", "^$1")
    )
    return spelled.str.replace_all(_SHORT_FRACTION, r"\frac{$1}{$2}").str.replace_all(r"\\frac(\d)\{", r"\frac{$1}{")


def _rationals(answers: pl.Series) -> pl.Series:
    distinct = answers.drop_nulls().unique()
    numbers = [rational(text) for text in distinct]
    table = pl.DataFrame({"text": distinct, "number": pl.Series(numbers, dtype=pl.String)})
    return answers.alias("text").to_frame().join(table, on="text", how="left", maintain_order="left")["number"]


def rational(text: str) -> str | None:
    """The number that a text is, in lowest terms ("-3/2", "1625"); None where it is not one number alone."""
    match = _NUMBER.fullmatch(text) if sum(map(str.isdigit, text)) <= MOST_DIGITS else None
    if not match:
        return None
    top, below = match["whole"] or match["top"] or match["over"], match["below"] or match["under"] or "1"
    divisor = _fraction(below)
    if not divisor:
        return None
    value = _fraction(top) / divisor
    return str(-value if match["sign"] == "-" else value)


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip(".") or "0")
