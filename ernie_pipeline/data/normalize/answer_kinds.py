r"""What kind of thing an answer is, read from its text alone.

The first rule that fits decides. Before them go delimiters, `\left`, `\right`, spacing, a full stop at the end, a
currency sign in front and a unit behind (`50\%`, `90^\circ`, `5 \text{ cm}`, `12 \mathrm{~km}/\mathrm{h}`, `60 miles
per hour` and `12 apples` are integers), and `x \in`.

| kind | rule |
|---|---|
| integer | `-3`, `1,000`, `1{,}000`, `1 000` |
| decimal | `3.14`, `.5`, `1,234.5` |
| fraction | of two integers, also mixed: `3/4`, `\frac{333}{1997}`, `1\frac{1}{2}` |
| text | has a word that is no function's name: `\text{Yes}`, `no solution`, `Monday` |
| interval | brackets of which one is square, `\infty` in brackets, a union of such, whatever stands behind `\in` |
| set | braces; a tuple; a list: `\{1,2\}`, `(1,2)`, `1, 2`, `6 or 9`, `\emptyset` |
| equation | has a relation outside of brackets: `x=3`, `y = 2x+1`, `a \le b` |
| expression | anything else: `\sqrt{2}`, `2\pi`, `10^{5}`, `f(a,b)`, a matrix, also one as `\begin{array}{ccc}` |

`(1,2)` can be an open interval or a pair. It counts as a set: in answers pairs (solutions, points) are the usual case.
"""

import polars as pl

from ernie_pipeline.data.normalize import spelling
from ernie_pipeline.data.normalize.masked import apply_where

KINDS = ("integer", "decimal", "fraction", "interval", "set", "equation", "expression", "text")

_PLAIN = r"^-?[0-9]+$"
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_FRACTION = rf"(?:{_INTEGER}/{_INTEGER}|\d*\\frac(?:\{{[-+]?{_INTEGER}\}}|\d)(?:\{{[-+]?{_INTEGER}\}}|\d))"

_NUMBER = rf"(?:{_INTEGER}?\.\d+|{_FRACTION}|{_INTEGER})"

_TEXT = r"\\(?:text|textbf|textit|textrm|mathrm|mbox|operatorname)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
_POWER = r"(?:\s*\^\s*(?:\{-?\d\}|-?\d)|[²³])"
_DEGREE = r"(?:\^\s*\{?\\circ\}?|°|\\degree)"
# ⟨cm⟩ was text in LaTeX: there a letter, or several words, are a unit too
_MARKED = r"⟨[^⟨⟩\d]*(?:\^?\{?-?\d\}?[^⟨⟩\d]*)?⟩"
_BARE = r"(?:(?:square|cubic|sq\.?|cu\.?)\s+)?[A-Za-z]{2,}\.?"
_ONE_UNIT = rf"(?:{_MARKED}|\\?%|{_DEGREE}(?:\s*{_MARKED})?|\\(?:Omega|pounds|euro)\b){_POWER}?"
_UNITS = rf"^([-+]?{_NUMBER})\s*{_ONE_UNIT}(?:\s*(?:/|\\cdot|·|\*|per)?\s*{_ONE_UNIT})*$"
_NAMED_UNIT = rf"^([-+]?{_NUMBER})\s+{_BARE}{_POWER}?(?:\s*(?:/|per)\s*[A-Za-z]+{_POWER}?)?$"
_NO_UNIT = r"⟨[^⟨⟩]*\b(?:if|or|and|is|when|for|where|times|mod|to|the|no|not)\b[^⟨⟩]*⟩|⟨\s*[ei]\s*⟩"
_CURRENCY = "$£€¥₹ \t\r\n"
_CURRENCY_NAME = r"^(?:⟨\s*(?:Rs|USD|US|EUR)\.?\s*⟩|Rs\.?|\\pounds|\\euro)\s*([\d.])"
_MEMBER = r"^\s*[A-Za-z]\s*\\in(?:\s+|([^a-z]))"
_CONJUNCTION = r"\s+(?:or|and)\s+"
_NO_WORD = (
    r"\\begin\s*\{array\}\s*(?:\[[a-z]\]\s*)?\{[^{}]*\}|\\(?:begin|end|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|"
    r"\b(?:(?:arc|a)?(?:sin|cos|tan|cot|sec|csc)h?|log|exp|min|max|gcd|lcm|mod|det|sqrt|frac|infty|binom)\b"
)
_BRACKETED = r"\\\{[^{}]*\\\}|\([^()\[\]{}]*\)|\[[^()\[\]{}]*\]|\{[^()\[\]{}]*\}"
_MATRIX = r"\\begin\s*\{(?:[bpvBV]?(?:small)?matrix|array)\}"
_RELATION = r"[=<>≤≥≠≡≈]|\\(?:leq?|geq?|neq?|leqslant|geqslant|equiv|approx|lt|gt|sim)(?:[^A-Za-z]|$)"


def answer_kind(answer: pl.Expr) -> pl.Expr:
    """One of `KINDS` for each bare answer [String]; null for null."""
    plain = pl.when(answer.is_not_null()).then(pl.lit("integer"))  # most answers, known at a glance
    return pl.coalesce(apply_where(answer, lambda text: ~text.str.contains(_PLAIN), _kind), plain).alias("kind")


def _kind(answer: pl.Expr) -> pl.Expr:
    words = _without_units(answer)
    members = words.str.replace(_MEMBER, "$1")
    parts = members.str.replace_all(_CONJUNCTION, "; ")
    # a comma before a space parts, so that "1, 000" are two numbers and "1,000" is one
    parted = parts.str.replace_all(r",\s+", ";")
    compact = parted.str.replace_all(r"\s+", "")
    outside = parted
    for _ in range(3):
        outside = outside.str.replace_all(_BRACKETED, "")
    bracketed = compact.str.contains(r"^\\?[(\[\]].*[)\[\]]$")
    is_interval = bracketed & (
        (members != words)
        | compact.str.contains(r"\\infty|\\cup")
        | (compact.str.contains(r"^[^;,]*[;,][^;,]*$") & compact.str.contains(r"^[\[\]]|[\]\[]$"))
    )
    is_set = compact.str.contains(r"^\\\{.*\\\}$|^\\(?:emptyset|varnothing)$|^[∅]$") | outside.str.contains("[,;]")
    is_tuple = compact.str.contains(r"^[(\[].*[;,].*[)\]]$") & (outside.str.strip_chars() == "")
    return (
        pl.when(compact.str.contains(rf"^[-+]?{_INTEGER}$"))
        .then(pl.lit("integer"))
        .when(compact.str.contains(rf"^[-+]?{_INTEGER}?\.\d+$"))
        .then(pl.lit("decimal"))
        .when(compact.str.contains(rf"^[-+]?{_FRACTION}$"))
        .then(pl.lit("fraction"))
        .when(parts.str.replace_all(_NO_WORD, " ").str.contains(r"\p{L}{3,}|^\s*(?:[Nn]o|NO)\b"))
        .then(pl.lit("text"))
        .when(words.str.contains(_MATRIX) & ~words.str.contains(_RELATION))
        .then(pl.lit("expression"))
        .when(is_interval)
        .then(pl.lit("interval"))
        .when(outside.str.contains(_RELATION))
        .then(pl.lit("equation"))
        .when(is_set | is_tuple)
        .then(pl.lit("set"))
        .otherwise(pl.lit("expression"))
    )


def _without_units(answer: pl.Expr) -> pl.Expr:
    words = answer.str.replace_all(r"\$", "", literal=True).str.strip_chars_start(_CURRENCY)
    words = words.str.strip_chars_end("$. \t\r\n").str.replace_many(spelling.ANSWER, leftmost=True)
    marked = words.str.replace_all(_TEXT, " ⟨$1⟩ ").str.strip_chars().str.strip_chars_end(".")
    marked = marked.str.replace(_CURRENCY_NAME, "$1")
    words = pl.when(~marked.str.contains(_NO_UNIT)).then(marked.str.replace(_UNITS, "$1")).otherwise(marked)
    words = words.str.replace_all("[⟨⟩]", " ").str.strip_chars().str.strip_chars_end(".").str.replace(_NAMED_UNIT, "$1")
    return words.str.replace(r"(\d) (\d{3})$", "$1$2")
