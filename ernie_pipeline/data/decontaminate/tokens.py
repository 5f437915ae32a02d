r"""Questions as tokens that are the same however a question is spelled: LaTeX, Unicode, spacing, case and punctuation.

A token is a number, a word or a symbol. What only sets type is no token (delimiters, braces and brackets, spacing and
font commands, commas, `_`), nor is `\cdot` but between numbers, since it may be left out; `\dfrac{a}{b}`, `\frac ab`, `½` and `a/b` are
`a / b`; `x^{2}` and `x²` are `x ^ 2`; `1{,}000`, `1,000` and `1000` are one number, and so are `2.50` and `2.5`, `twelve`
and `12`. A currency's sign and name go, `percent` is `%`. The label of a question ("Problem 3.", "(b)") is not part of it.

Which tokens there are is decided by patterns over the texts; what each is called, over the few distinct ones.
"""

import re

import numpy as np
import polars as pl

from ernie_pipeline.data.normalize.words import Words, split_words, word_hash

NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
TOKEN = rf"{NUMBER}|\\\p{{L}}+|\p{{L}}[\p{{L}}\p{{M}}]*|<=|>=|!=|[-+/=<>^|%!]|\p{{Sm}}"

_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_ARGUMENT = rf"\s*({_BRACES}|\d|[a-z]|\\[a-z]+)"
FRACTION = rf"\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}"
NESTED_FRACTIONS = 3

NUMBER_BIT, CONTRAST_BIT = 1, 2

LABEL = (
    r"^\s*[#*\s]*(?:"
    r"(?:problem|question|exercise|example|task|no|q|ex)\b[\s.*]*(?:no\.?\s*)?#?\d{1,4}(?:\.\d+)*(?:[a-z]\b|\([a-z]\))?[\s*.:)]*"
    r"|q\s?\d{1,3}(?:\.\d+)*[\s*.:)]+|(?:problem|question|exercise|example|task|q)[\s*]*[.:)]+"
    r"|\(\s*\d+\s*(?:points?|pts|marks?)\.?\s*\)|\(?[a-z\d]{1,3}[.)]\s"
    r"|\[[^\[\]$\\]*\d[^\[\]$\\]*\]\s|\([a-z][^()$\\=]*\b(?:19|20)\d\d\b[^()$\\=]*\)|\(\s*(?:19|20)\d\d\s+[a-z][^()$\\=]*\)"
    r")[\s*:.]*"
)
"""A question's own label at its beginning: "Problem 3.", "**Question 12:**", "3)", "(b)", "[AIME 2024 I, Problem 3]"."""

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ"
CHARACTERS = {  # before NFKC, which makes 2 of ² and loses that it is an exponent
    **dict.fromkeys("−–‐‑‒", "-"),  # noqa: RUF001
    **dict.fromkeys("—―", " "),
    **dict.fromkeys("×·⋅∙∗✕", " * "),  # noqa: RUF001
    **dict.fromkeys(("\u2009", "\u202f"), "\\,"),  # thin spaces, which group digits
    "½": " 1/2 ", "⅓": " 1/3 ", "⅔": " 2/3 ", "¼": " 1/4 ", "¾": " 3/4 ", "⁻": "^-", "÷": "/", "∕": "/", "⁄": "/",  # noqa: RUF001
    "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=", "√": "\\sqrt ", "∞": "\\infty ", "°": "\\degree ",
    "π": "\\pi ", "∠": "\\angle ", "△": "\\triangle ", "∆": "\\triangle ", "∈": "\\in ", "→": "\\to ", "∑": "\\sum ",
    "∪": "\\cup ", "∩": "\\cap ", "⊥": "\\perp ", "∥": "\\parallel ", "≡": "\\equiv ", "≈": "\\approx ", "±": "\\pm ",
    "∣": "|", "…": " ", "⌊": "\\lfloor ", "⌈": "\\lceil ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "θ": "\\theta ",  # noqa: RUF001
    "λ": "\\lambda ", "μ": "\\mu ", "φ": "\\phi ", "ω": "\\omega ", "σ": "\\sigma ", "ε": "\\epsilon ",  # noqa: RUF001
}  # fmt: skip

UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
COMPOUNDS = {
    f"{ten}{between}{unit}": str(10 * (tens + 2) + units)
    for tens, ten in enumerate(TENS)
    for units, unit in enumerate(UNITS[1:10], start=1)
    for between in ("-", " ")
}
ENTITIES = {"&#39;": "'", "&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&times;": "*"}

STEPS = (  # (what a text has for it to be needed at all, pattern, replacement), in this order
    ("<", r"<sup>", "^"),
    ("<", r"</?(?:p|br|b|i|u|em|strong|div|span|su[bp]|li|[uo]l|h\d)\b[^<>]*>", " "),
    ("", LABEL, ""),
    ("", LABEL, ""),
    ("ty", rf"\b({'|'.join(TENS)})\s*-\s*({'|'.join(UNITS[1:10])})\b", "$1-$2"),
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
    ("-", r"(\p{L}{2}|\d)-(\p{L}{2})", "$1 $2"),
    ("-", r"(\p{L}{2})-(\p{L}\b|\p{L}{2})", "$1 $2"),
    ("-", r"(\p{L}{2})-(\d)", "$1 $2"),
    ("\\cdot", r"\\cdot\b", "*"),
    ("\\times", r"\\times\b", "*"),
    ("*", r"([\d})]|%)[\s$]*\*[\s$]*([\d{(\\])", "$1 × $2"),  # noqa: RUF001
    ("*", r"([\d})]|%)[\s$]*\*[\s$]*([\d{(\\])", "$1 × $2"),  # noqa: RUF001
    *((("frac", FRACTION, " $1 / $2 "),) * NESTED_FRACTIONS),
)

NAMES = {
    **{word: str(number) for number, word in enumerate(UNITS)},
    **{word: str(number) for number, word in enumerate(("seventeen", "eighteen", "nineteen"), start=17)},
    **{word: str(number) for number, word in zip(range(20, 100, 10), TENS, strict=True)},
    **dict.fromkeys(("\\leq", "\\le", "\\leqslant"), "<="),
    **dict.fromkeys(("\\geq", "\\ge", "\\geqslant"), ">="),
    **dict.fromkeys(("\\neq", "\\ne"), "!="),
    **dict.fromkeys(("\\lt",), "<"),
    **dict.fromkeys(("\\gt",), ">"),
    **dict.fromkeys(("\\div", "\\over"), "/"),
    **dict.fromkeys(("\\mid", "\\vert", "\\lvert", "\\rvert"), "|"),
    **dict.fromkeys(("\\dbinom", "\\tbinom", "\\choose"), "binom"),
    **dict.fromkeys(("\\varphi",), "phi"),
    **dict.fromkeys(("\\varepsilon",), "epsilon"),
    **dict.fromkeys(("\\rightarrow", "\\longrightarrow"), "to"),
    **dict.fromkeys(("degrees", "deg"), "degree"),
    **dict.fromkeys(("percent", "percentage", "pct"), "%"),
    **dict.fromkeys(("equals",), "="),
    **dict.fromkeys(("plus",), "+"),
    **dict.fromkeys(("minus",), "-"),
    **dict.fromkeys(("twice", "double", "doubled", "doubles"), "2"),
    **dict.fromkeys(("thrice", "triple", "tripled", "triples"), "3"),
    **dict.fromkeys(("smallest", "minimum", "minimal", "lowest", "min"), "least"),
    **dict.fromkeys(("largest", "maximum", "maximal", "highest", "max"), "greatest"),
    "hundred": "100", "dozen": "12",
    "metre": "meter", "metres": "meters", "centimetre": "centimeter", "centimetres": "centimeters", "litre": "liter",
    "litres": "liters", "kilometre": "kilometer", "kilometres": "kilometers", "colour": "color", "colours": "colors",
    "coloured": "colored", "neighbour": "neighbor", "neighbours": "neighbors", "centre": "center", "centred": "centered",
    "labelled": "labeled", "modelled": "modeled", "travelled": "traveled", "travelling": "traveling", "grey": "gray",
    "favourite": "favorite",
}  # fmt: skip
"""Other names of tokens."""
CONTRASTS = frozenset(
    """
    half third quarter fourth fifth sixth seventh eighth ninth tenth first last monday tuesday wednesday thursday friday
    saturday sunday january february march april may june july august september october november december
    least greatest even odd sum difference product quotient sin cos tan cot sec csc sine cosine tangent area perimeter circumference
    volume radius diameter mean median mode range numerator denominator lfloor lceil increase decrease increased decreased
    north south east west prime composite rational irrational domain ascending descending gcd lcm multiple divisor factor
    divisors factors union intersection maximize minimize arithmetic geometric width length height weight convex concave
""".split()
)
"""Words of which another one in the same place asks something else."""
NOTHING = frozenset(
    (
        *("\\cdot", "\\times", "\\ast", "times", "\\displaystyle", "\\textstyle", "\\limits", "\\text", "\\mathrm", "\\rm"),
        *("\\mathbf", "\\textbf", "\\textit", "\\mathit", "\\mbox", "\\operatorname", "\\mathsf", "\\emph", "\\bf", "\\it"),
        *("\\underline", "\\boldsymbol", "\\mathbb", "\\mathcal", "\\hspace", "\\vspace", "\\noindent", "\\par", "\\textrm"),
        *("\\ldots", "\\dots", "\\cdots", "\\dotsc", "\\dotsb", "\\usd", "usd", "dollar", "dollars", "s", "$", "\\centering"),
        *("\\rfloor", "\\rceil", "\\langle", "\\rangle", "\\lbrace", "\\rbrace", "\\phantom", "\\quad", "~", "a", "an", "the"),
        *("compute", "calculate", "evaluate", "find", "determine", "what", "is", "are", "value", "simplify", "reduce", "please"),
    )
)  # fmt: skip
"""Tokens that say nothing."""


def tokens_of(questions: pl.Series) -> Words:
    """The tokens of each question; a null has none."""
    words = split_words(questions, _token_lists, lambda token: token_hash(canonical(token)))
    kept = words.vocabulary[words.codes] != 0
    counts = np.zeros(len(words.codes) + 1, np.int64)
    np.cumsum(kept, out=counts[1:])
    return Words(words.codes[kept], counts[words.offsets], words.vocabulary)


def token_texts(questions: pl.Series) -> list[list[str]]:
    """The same as texts, for few questions."""
    return [
        [name for token in tokens or () if (name := canonical(token))] for tokens in _token_lists(questions).to_list()
    ]


def token_hash(name: str) -> int:
    """64 bits, of which the last two say what tells questions apart: 1 for a number, 2 for a contrast; 0 for ""."""
    return (word_hash(name) & ~3) | NUMBER_BIT * is_number(name) | CONTRAST_BIT * (name in CONTRASTS) if name else 0


def canonical(token: str) -> str:
    """What a token is called; "" for one that says nothing."""
    if token[0].isdigit() or token[0] == ".":
        return plain_number(token)
    if token in NOTHING:
        return ""
    return NAMES.get(token) or token.removeprefix("\\")


def plain_number(token: str) -> str:
    """`1,000.50` as `1000.5`."""
    whole, _, decimals = token.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return f"{whole.lstrip('0') or '0'}.{decimals}" if decimals else whole.lstrip("0") or "0"


def is_number(token: str) -> bool:
    """Whether a token of `token_texts` is a number."""
    return token[0].isdigit()


def spelled(questions: pl.Series) -> pl.Series:
    """The questions in lower case, with what may be spelled in several ways spelled in one."""
    texts = _replaced(_plain_characters(questions.fill_null("")), "&", ENTITIES).str.to_lowercase()
    for needed, pattern, by in STEPS:
        if not needed:
            texts = texts.str.replace(pattern, by)
            continue
        some = texts.str.contains(needed, literal=True).arg_true()
        if not some.is_empty():
            texts = texts.scatter(some, texts.gather(some).str.replace_all(pattern, by))
    return _replaced(texts, "ty", COMPOUNDS)


def _replaced(texts: pl.Series, needed: str, names: dict[str, str]) -> pl.Series:
    some = texts.str.contains(needed, literal=True).arg_true()
    return texts.scatter(some, texts.gather(some).str.replace_many(names)) if len(some) else texts


def _token_lists(questions: pl.Series) -> pl.Series:
    return spelled(questions).str.extract_all(TOKEN)


def _plain_characters(questions: pl.Series) -> pl.Series:
    """ASCII where there is a way to say it; only the texts that are not ASCII are touched."""
    other = (questions.str.len_bytes() != questions.str.len_chars()).arg_true()
    if other.is_empty():
        return questions
    texts = questions.gather(other).str.replace_all(f"([{SUPERSCRIPTS}]+)", "^$1").str.replace_many(CHARACTERS)
    return questions.clone().scatter(other, texts.str.normalize("NFKC"))


_SENTENCE_END = re.compile(r"(?<=[.?!:;])[\s*$]+|\n+|(?<=[\d)\]}$%=,]) (?=[A-Z][a-z]+ )")


def sentences(question: str) -> list[str]:
    """The question parted at the ends of its sentences."""
    return [part for part in _SENTENCE_END.split(question) if part.strip()]
