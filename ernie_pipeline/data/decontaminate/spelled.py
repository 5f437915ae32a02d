r"""One spelling for what may be spelled in several ways, and the label of a question left out.

Patterns over the texts, each only over those that have what it looks for.
"""

import re

import polars as pl

from ernie_pipeline.data.decontaminate.names import COMPOUNDS, SMALL, TENS

_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_ARGUMENT = rf"\s*({_BRACES}|\d|[a-z]|\\[a-z]+)"
FRACTION = rf"\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}"
NESTED_FRACTIONS = 3

_YEAR = r"(?:19|20)\d\d\b"
_NO_FORMULA = r"[^()$\\=]*"
LABELS = (
    # "Problem 3.", "**Question 12:**", "No. 5", "Exercise 2(c).", "Problem 3.7"
    r"(?:problem|question|exercise|example|task|no|q|ex)\b[\s.*]*(?:no\.?\s*)?#?"
    r"\d{1,4}(?:\.\d+)*(?:[a-z]\b|\([a-z]\))?[\s*.:)]*",
    r"q\s?\d{1,3}(?:\.\d+)*[\s*.:)]+",  # "Q5."
    r"(?:problem|question|exercise|example|task|q)[\s*]*[.:)]+",  # "Question:"
    r"\(\s*\d+\s*(?:points?|pts|marks?)\.?\s*\)",  # "(10 points)"
    r"\(?[a-z\d]{1,3}[.)]\s",  # "3)", "(b)"
    r"\[[^\[\]$\\]*\d[^\[\]$\\]*\]\s",  # "[2012 AMC 12B #14]"
    rf"\([a-z]{_NO_FORMULA}\b{_YEAR}{_NO_FORMULA}\)|\(\s*{_YEAR}\s+[a-z]{_NO_FORMULA}\)",  # "(AMC 10A 2019, Problem 8)"
)
LABEL = rf"^[#*\s]*(?:{'|'.join(LABELS)})[\s*:.]*"
_INSIDE = r"[^()\[\]$\\=]*"
REMARK = rf"([\s.?!$])[(\[]{_INSIDE}(?:[a-z]{{3}}{_INSIDE}\d|\d{_INSIDE}[a-z]{{3}}){_INSIDE}[)\]]\s*$"
"""A note with a number at a question's end: "(Grade 6)", "[2 marks]"."""

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ"
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "θ": "theta", "λ": "lambda", "μ": "mu", "φ": "phi",  # noqa: RUF001
    "ω": "omega", "σ": "sigma", "ε": "epsilon", "π": "pi",  # noqa: RUF001
}  # fmt: skip
_SIGNS = {
    "√": "sqrt", "∞": "infty", "°": "degree", "∠": "angle", "△": "triangle", "∆": "triangle", "∈": "in", "→": "to",
    "∑": "sum", "∪": "cup", "∩": "cap", "⊥": "perp", "∥": "parallel", "≡": "equiv", "≈": "approx", "±": "pm",  # noqa: RUF001
    "⌊": "lfloor", "⌈": "lceil",
}  # fmt: skip
CHARACTERS = {  # before NFKC, which makes 2 of ² and loses that it is an exponent
    **dict.fromkeys("−–‐‑‒", "-"),  # noqa: RUF001
    **dict.fromkeys("—―…", " "),
    **dict.fromkeys("×·⋅∙∗✕", " * "),  # noqa: RUF001
    **dict.fromkeys("÷∕⁄", "/"),  # noqa: RUF001
    **dict.fromkeys("≤⩽", "<="),
    **dict.fromkeys("≥⩾", ">="),
    **dict.fromkeys(("\u2009", "\u202f"), "\\,"),  # thin spaces, which group digits
    **{"½": " 1/2 ", "⅓": " 1/3 ", "⅔": " 2/3 ", "¼": " 1/4 ", "¾": " 3/4 ", "⁻": "^-", "≠": "!=", "∣": "|"},  # noqa: RUF001
    **{sign: f"\\{name} " for sign, name in {**_GREEK, **_SIGNS}.items()},
}
ENTITIES = {"&#39;": "'", "&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&times;": "*"}

STEPS = (  # (what a text has for it to be needed at all, pattern, replacement), in this order
    ("<", r"<sup>", "^"),
    ("<", r"</?(?:p|br|b|i|u|em|strong|div|span|su[bp]|li|[uo]l|h\d)\b[^<>]*>", " "),
    ("", LABEL, ""),
    ("", LABEL, ""),
    (")", REMARK, "$1"),
    ("]", REMARK, "$1"),
    ("ty", rf"\b({TENS.replace(' ', '|')})\s*-\s*({'|'.join(SMALL[1:10])})\b", "$1-$2"),
    (" ,", r"(\d)\s+,\s*(\d{3})\b", "$1,$2"),
    ("\\!", r"\\!", ""),
    ("{,}", r"\{,\}", ","),
    ("\\,", r"(\d)\\,(\d{3})\b", "${1}${2}"),
    ("\\,", r"(\d)\\,(\d{3})\b", "${1}${2}"),
    ("\\", r"\\(?:[,;: ]|q?quad\b)|~", " "),
    ("\\", r"\\(?:begin|end)\{[a-z]+\*?\}(?:\{[lcr|]*\})?|\\\\", " "),
    ("\\", r"\\(?:left|right|big+[lr]?)\b\.?", " "),
    ("\\circ", r"\^\s*\{?\s*\\circ\b\s*\}?", " \\degree "),
    ("**", r"\*\*(\d|[a-z]\b)", "^$1"),
    ("-", r"(\p{L}{2}|\d)-(\p{L}{2})", "$1 $2"),  # a hyphen and no minus
    ("-", r"(\p{L}{2})-(\p{L}\b|\p{L}{2})", "$1 $2"),
    ("-", r"(\p{L}{2})-(\d)", "$1 $2"),
    ("\\cdot", r"\\cdot\b", "*"),
    ("\\times", r"\\times\b", "*"),
    ("*", r"([\d})%])[\s$]*\*[\s$]*([\d{(\\])", "$1 × $2"),  # noqa: RUF001
    ("*", r"([\d})%])[\s$]*\*[\s$]*([\d{(\\])", "$1 × $2"),  # noqa: RUF001
    *((("frac", FRACTION, " $1 / $2 "),) * NESTED_FRACTIONS),
)

_SENTENCE_END = re.compile(r"(?<=[.?!:;])[\s*$]+|\n+|(?<=[\d)\]}$%=,]) (?=[A-Z][a-z]+ )")


def spelled(questions: pl.Series) -> pl.Series:
    """The questions in lower case and in one spelling; "" for null."""
    texts = _replaced(_plain_characters(questions.fill_null("")), "&", ENTITIES).str.to_lowercase()
    for needed, pattern, by in STEPS:
        if not needed:
            texts = texts.str.replace(pattern, by)
            continue
        some = texts.str.contains(needed, literal=True).arg_true()
        if not some.is_empty():
            texts = texts.scatter(some, texts.gather(some).str.replace_all(pattern, by))
    return _replaced(texts, "ty", COMPOUNDS)


def sentences(question: str) -> list[str]:
    """The question parted at the ends of its sentences, and where a capital follows a number or a formula."""
    return [part for part in _SENTENCE_END.split(question) if part.strip()]


def _replaced(texts: pl.Series, needed: str, names: dict[str, str]) -> pl.Series:
    some = texts.str.contains(needed, literal=True).arg_true()
    return texts.scatter(some, texts.gather(some).str.replace_many(names)) if len(some) else texts


def _plain_characters(questions: pl.Series) -> pl.Series:
    """ASCII where there is a way to say it; only the texts that are not ASCII are touched."""
    other = (questions.str.len_bytes() != questions.str.len_chars()).arg_true()
    if other.is_empty():
        return questions
    texts = questions.gather(other).str.replace_all(f"([{SUPERSCRIPTS}]+)", "^$1").str.replace_many(CHARACTERS)
    return questions.clone().scatter(other, texts.str.normalize("NFKC"))
