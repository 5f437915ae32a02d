# ruff: noqa: RUF001
r"""Typesetting: two spellings of one answer become one text. Nothing here changes what an answer says.

Case is kept, and so is a space, where it may part two words or two numbers. What `normalize` gives is what the tokens
(tokens.py) are cut from.
"""

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙ", "0123456789+-=()n", strict=True))
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_SIGNS = {
    **dict.fromkeys("−–—‐‑‒―﹣－", "-"),
    **dict.fromkeys("×✕✖⨯", r"\times "),
    **dict.fromkeys("·∙⋅•∗", r"\cdot "),
    **dict.fromkeys("'’′‘", "'"),
    **dict.fromkeys("°º˚", r"^\circ "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u2061\u2062\u2063\u00ad\u200e\u200f", ""),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000\t", " "),
    "÷": "/", "⁄": "/", "∕": "/", "∶": ":", "∞": r"\infty ", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≦": r"\le ",
    "⩽": r"\le ", "⩾": r"\ge ", "≧": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "≡": r"\equiv ", "±": r"\pm ", "∓": r"\mp ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "⌀": r"\emptyset ",
    "Ø": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}",
    "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "→": r"\to ", "⟶": r"\to ", "⇒": r"\to ", "…": r"\ldots ", "⋯": r"\ldots ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "∠": r"\angle ", "△": r"\triangle ", "∣": "|", "″": "''", "“": '"', "”": '"',
    "∧": r"\wedge ", "∨": r"\vee ", "∫": r"\int ", "∑": r"\sum ", "∏": r"\prod ", "∂": r"\partial ",
    "、": ",", "。": ".",
    "€": r"\euro ", "£": r"\pound ", "₹": r"\rupee ", "¢": r"\text{ cents}", "¥": r"\yen ",
    "ϕ": r"\phi ", "φ": r"\varphi ", "ε": r"\epsilon ", "ı": "i",
}  # fmt: skip
_GREEK = (
    "alpha beta gamma delta zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
_SIGNS |= {letter: f"\\{name} " for letter, name in zip("αβγδζηθικλμνξπρστυχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK.split(), strict=True)}
_TABLE = str.maketrans(_SIGNS)

_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "lbrace": "{",
    "rbrace": "}", "neq": "ne", "leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge", "leqq": "le",
    "geqq": "ge", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "varnothing": "emptyset",
    "land": "wedge", "lor": "vee", "rightarrow": "to", "longrightarrow": "to", "Rightarrow": "to", "implies": "to",
    "textbf": "text", "textit": "text", "textrm": "text", "textsf": "text", "texttt": "text", "textnormal": "text",
    "mbox": "text", "hbox": "text", "textup": "text", "emph": "text", "underline": "text", "textsc": "text",
    "boldsymbol": "mathbf", "bm": "mathbf", "bold": "mathbf", "operatorname": "mathrm", "operatorname*": "mathrm",
    "mathit": "mathnormal", "mathsf": "mathrm", "mathtt": "mathrm", "lvert": "bar", "rvert": "bar", "vert": "bar",
    "backslash": "setminus", "smallsetminus": "setminus", "bigcup": "cup", "ast": "cdot",
    "arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc", "overrightarrow": "vec", "bf": "", "rm": "", "it": "",
    "simeq": "approx", "doteq": "approx", "Vert": "|", "lVert": "|", "rVert": "|",
    "widehat": "hat", "widetilde": "tilde", "lt": "<", "gt": ">", "degree": "^\\circ", "textdegree": "^\\circ",
    "pounds": "pound", "textdollar": "$", "textpercent": "%",
}  # fmt: skip
_SAME_RE = re.compile(r"\\(operatorname\*|[A-Za-z]+)")
_DROPPED = re.compile(
    r"\\(?:large|Large|LARGE|huge|Huge|small|normalsize|tiny|displaystyle|textstyle|scriptstyle|limits|nolimits|left\s*\.|right\s*\.|left|right|middle|"
    r"[bB]igg?[lrm]?|mathstrut|strut|nobreak|allowbreak|boxed|fbox|mathopen|mathclose|mathord|mathrel|mathbin|mathop)"
    r"(?![A-Za-z])|\\!"
)
_SPACES = re.compile(
    r"\\(?:quad|qquad|enspace|enskip|thinspace|medspace|thickspace|space|hfill)(?![A-Za-z])"
    r"|\\[hv]space\*?\{[^{}]*\}|\\h?phantom\{[^{}]*\}|\\[,;: ]|~|\n|\r"
)
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|\\[,;:! ]|~| )\d{3})+(?![\d/])(?!\s*\\(?:,|;|:|!| )?\s*\d)")
_THIN_COMMA = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\!,|\{,\\!\})\s*(?=\d{3}(?!\d))")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("`", "`"))
_FORMULA = re.compile(r"(?<!\\)\$(?!\s)((?:[^$\\]|\\.)+?)(?<!\s)\$(?!\d)", re.DOTALL)
_ORDINAL = re.compile(
    r"(?<=\d)()\s*(?:\^\s*\{?\s*)?(?:\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)\b)\}?"
)
_MICRO = re.compile(r"\\mu\s*\\(?:text|mathrm|rm)\s*\{\s*([ms])\s*\}")
_CHOOSE = re.compile(r"(?:\{\})?[_^]\{?(\w+)\}?\s*C\s*_\{?(\w+)\}?")
_CIRC = re.compile(
    r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])|\{\s*\^\s*\\circ\s*\}|\{?\\(?:text|mathrm)\s*\{\s*o\s*\}\}?)"
)


@lru_cache(maxsize=4096)
def normalize(text: str) -> str:
    """The text of an answer, without a box around it, in one spelling."""
    text = _from_unicode(text)
    text = re.sub(r"\\\\(?=(?:d?frac|sqrt|pi|text|left|right|times|cdot|infty|pm)(?![a-z]))", r"\\", text)
    text = _ORDINAL.sub(r"\1", _without_dollars(text).replace('"', ""))
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _MICRO.sub(r"\\text{ u\1}", text)
    text = unwrapped(text).replace("\\\\", r"\cr ")
    text = _THIN_COMMA.sub("", _GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]), text))
    text = text.replace("{:}", ":").replace("{,}", ",").replace(r"\colon", ":")
    text = re.sub(r"\\not\s*=", r"\\ne ", text).replace(r"\not\in", r"\notin")
    text = re.sub(r"\\(?:text)?color\s*\{[^{}]*\}|\\text\s*\{\s*[.,;]?\s*\}\s*$", " ", text)
    text = _SPACES.sub(" ", text)
    text = _DROPPED.sub("", text)
    text = _SAME_RE.sub(_one_name, text)
    text = _CIRC.sub(r"\\degree ", text)
    text = text.replace("**", "^").replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
    text = re.sub(r"\+\s*/\s*-|\+-(?=\s*[\d\\])", r"\\pm ", text).replace("==", "=")
    text = re.sub(r"(?i)\b([ap])\.\s?m\b\.?", r"\1m", text)
    return unwrapped(text)


def unwrapped(text: str) -> str:
    """Without what is around a whole answer: dollars, bold type, a full stop, an equals sign before it."""
    before = None
    while text != before:
        before = text
        text = text.strip().strip("\u200b")
        text = re.sub(r"(?:(?<!\\)[.;,:]|\\\\|\\)+$", "", text).rstrip() if not text.endswith("...") else text
        for opening, closing in _WRAPPERS:
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = inner if opening not in inner and closing not in inner else text
        text = re.sub(r"^(?:=|:)\s*", "", text)
    return text


def _without_dollars(text: str) -> str:
    r"""$1$, $2$ or $x=1$ or $x=2$ or $30$ cm without dollars; "$5 and $6" are sums of money."""
    marks = len(re.findall(r"(?<!\\)\$", text))
    if marks < 2 or marks % 2:
        return text
    bare = _FORMULA.sub(r" \1 ", text)
    return text if re.search(r"(?<!\\)\$", bare) else bare


def _from_unicode(text: str) -> str:
    if text.isascii():
        return text
    out: list[str] = []
    for run in re.findall(f"[{''.join(_SUPERSCRIPTS)}]+|[{''.join(_SUBSCRIPTS)}]+|.", text, re.DOTALL):
        if run[0] in _SUPERSCRIPTS:
            out.append("^{" + "".join(_SUPERSCRIPTS[c] for c in run) + "}")
        elif run[0] in _SUBSCRIPTS:
            out.append("_{" + "".join(_SUBSCRIPTS[c] for c in run) + "}")
        elif run in _VULGAR:
            over, under = _VULGAR[run].split("/")
            out.append(rf"\frac{{{over}}}{{{under}}}")
        else:
            out.append(run)
    text = "".join(out).translate(_TABLE)
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_TABLE)


def _one_name(found: re.Match[str]) -> str:
    name = found[1]
    if name not in _SAME:
        return found[0]
    same = _SAME[name]
    if same == "bar":
        return "|"
    if same in ("", "<", ">", "^\\circ"):
        return same if same == "^\\circ" else f"{same} " if same else " "
    return f"\\{same}"
