r"""Tokens of a normalised answer: numbers, letters, words, signs.

In running type (`\text{...}`) letters make words; in mathematics a letter is a symbol, and a run of letters is what
`_run` says: a function, a unit behind a number, a word, or a product of symbols.
"""

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from ernie_pipeline.grading.units import ATTACHED, KNOWN_UNITS
from ernie_pipeline.grading.word_set import word_set


class Token(NamedTuple):
    """`kind`: num, let (one symbol), run (letters: a label alone, a product among others), word, fn, cmd, op, env.

    `roman`: a single letter in running or upright type. `space`: whether one stood before it. `value` of a number, with
    `places` where it is a plain decimal.
    """

    kind: str
    text: str
    space: bool = False
    roman: bool = False
    value: Fraction | None = None
    places: int | None = None
    content: str = ""


class Unreadable(ValueError):
    """No grammar of ours has this."""


FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth ln log lg exp sqrt max min gcd lcm abs ",
    "floor ceil det arg sgn deg dim ker Re Im cis arcsec arccsc arsinh arcosh artanh rank tr trace sup inf lim",
)
GREEK = word_set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho varrho sigma ",
    "tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar ",
    "imath jmath aleph nabla partial triangle angle",
)
_PLAIN_GREEK = GREEK - {"eta", "nu", "xi", "chi", "psi", "rho", "mu", "ell", "partial", "triangle", "angle"}
_SMALL_WORDS = word_set(
    "or and if to is in no of at by on as we it be an not nor for per yes all any the day odd men one two six ten its ",
    "max min may are has but cup box boy bag car cat dog egg hat jar map pen pie row set top win use red new old mph ",
    "gal lbs hrs hr sec oz ft yd mi kg km cm mm rpm bus cow hen",
)
_TOKEN = re.compile(
    r"(?P<space>\s+)|\\begin\s*\{(?P<env>[A-Za-z]+)\*?\}|\\(?P<cmd>[A-Za-z]+)|\\(?P<escaped>.)"
    r"|(?P<num>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)|(?P<run>[A-Za-z]+)|(?P<op>.)",
    re.DOTALL,
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\s*(?:\\overline\s*\{(\d+)\}|\\overline\s*(\d)|\\bar\s*\{(\d+)\}|\((\d+)\))")
_DOTTED = re.compile(r"(\d*)\.(\d*)\s*\\dot\s*\{?(\d)\}?(?:(\d*)\s*\\dot\s*\{?(\d)\}?)?(?!\d)")
_ENDLESS = re.compile(r"(\d*)\.(\d*?)(\d{1,6}?)\3{2,}\d?\s*(?:\\ldots|\.\.\.)")
_TEXT_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<num>(?:\d+(?:\.\d+)?|\.\d+))|(?P<word>[^\W\d_]+(?:['-][^\W\d_]+)*)|\\(?P<cmd>[A-Za-z]+)"
    r"|\\(?P<escaped>.)|(?P<op>.)",
    re.DOTALL,
)
_MATHS_IN_TEXT = re.compile(r"[\s\d.,:;/()+\-=$%\\^{}<>*!]*")
_ALIASES = {
    "tg": "tan", "ctg": "cot", "cotg": "cot", "arctg": "arctan", "arcctg": "arccot", "sh": "sinh", "ch": "cosh",
    "th": "tanh", "cosec": "csc", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sign": "sgn",
}  # fmt: skip
_DECORATIONS = word_set("vec hat bar tilde overline dot ddot widehat overleftarrow overarc wideparen")
_STYLES = word_set("mathnormal mathcal mathfrak mathscr mathbb mathbf")
_AFTER_BASE = ("", "+", "-", "=", ",", ")", "}", "/")
_SIGNS = tuple("+-=^_*/<>")
_MAX_DEPTH = 60


def tokenize(text: str) -> list[Token]:
    """The tokens of a normalised text. Raises `Unreadable` for braces that do not match."""
    return _maths(text, 0)


def braced(text: str, start: int) -> tuple[str, int]:
    """The content of the braces that open at `start` (after blanks), or the next character; and where it ends."""
    while start < len(text) and text[start] == " ":
        start += 1
    if start >= len(text):
        raise Unreadable("a command lacks its argument")
    if text[start] != "{":
        if text[start] == "\\":
            end = re.compile(r"\\(?:[A-Za-z]+|.)").match(text, start)
            return (end[0], end.end()) if end else (text[start:], len(text))
        return text[start], start + 1
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : at], at + 1
        at += 1
    raise Unreadable("braces do not match")


def _maths(text: str, depth: int) -> list[Token]:
    if depth > _MAX_DEPTH:
        raise Unreadable("nested too deeply")
    out: list[Token] = []
    at, space = 0, False
    while at < len(text):
        if text[at].isdigit() or text[at] == ".":
            special = _repeating(text, at, space)
            if special is not None:
                out.append(special[0])
                at, space = special[1], False
                continue
        found = _TOKEN.match(text, at)
        assert found is not None
        kind, value, at = found.lastgroup, found[found.lastgroup or 0], found.end()
        if kind == "space":
            space = True
            continue
        if kind == "cmd":
            at = _command(value, text, at, space, out, depth)
        elif kind == "env":
            at = _environment(value, text, at, space, out)
        elif kind == "num":
            at = _number(value, text, at, space, out)
        elif kind == "run":
            out.extend(_run(value, space, out, text, at))
        else:
            out.append(Token("op", _escaped(value) if kind == "escaped" else value, space))
        space = False
    return out


def _escaped(sign: str) -> str:
    return {"{": "lbrace", "}": "rbrace", "|": "norm", "\\": "newline"}.get(sign, sign)


def _number(value: str, text: str, at: int, space: bool, out: list[Token]) -> int:
    """A number; after `\\frac`, `\\sqrt` and the like without braces TeX takes one digit alone."""
    takes_one = out and out[-1].kind == "cmd" and out[-1].text in ("frac", "sqrt", "binom") and value[0].isdigit()
    base = len(out) > 1 and out[-1].text == "_" and out[-2].text == "log" and text[at:].lstrip()[:1] in _AFTER_BASE
    second = len(out) > 1 and out[-2].kind == "cmd" and out[-2].text in ("frac", "binom") and out[-1].kind == "num"
    if (takes_one or second or base) and len(value) > 1 and "." not in value and not space:
        at -= len(value) - 1
        value = value[0]
    out.append(number_token(value, space))
    return at


def number_token(value: str, space: bool = False) -> Token:
    """The token of a plain decimal number or one in e-notation."""
    mantissa, _, exponent = value.lower().partition("e")
    if (exponent and abs(int(exponent)) > 10_000) or len(value) > 100_000:
        raise Unreadable("too large to read")
    whole, _, decimals = mantissa.partition(".")
    exact = Fraction(_integer(whole + decimals), 10 ** len(decimals))
    places = len(decimals) if decimals and not exponent else None
    return Token("num", value, space, False, exact * Fraction(10) ** int(exponent or 0), places)


def _integer(digits: str) -> int:
    """`int` without Python's limit on the number of digits."""
    if len(digits) <= 4000:
        return int(digits or 0)
    half = len(digits) // 2
    power: int = 10**half
    return _integer(digits[:-half]) * power + _integer(digits[-half:])


def _repeating(text: str, at: int, space: bool) -> tuple[Token, int] | None:
    for pattern in (_REPEATING, _DOTTED, _ENDLESS):
        found = pattern.match(text, at)
        if found is None:
            continue
        groups = list(found.groups())
        if pattern is _REPEATING:
            period = next(g for g in groups[2:] if g)
        elif pattern is _DOTTED:
            period = groups[2] + (groups[3] or "") + (groups[4] or "")
        else:
            period = groups[2]
        whole, fixed = groups[0] or "0", groups[1]
        scale = 10 ** len(fixed)
        value = Fraction(int(whole + fixed), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))
        return Token("num", found[0], space, False, value), found.end()
    return None


def _environment(name: str, text: str, at: int, space: bool, out: list[Token]) -> int:
    end = text.find(f"\\end{{{name}", at)
    if end < 0:
        raise Unreadable("an environment is not closed")
    depth, look = 1, re.compile(r"\\(begin|end)\s*\{" + name + r"\*?\}")
    for found in look.finditer(text, at):
        depth += 1 if found[1] == "begin" else -1
        if depth == 0:
            content = text[at : found.start()]
            if name == "array":
                content = braced(content, 0)[1:] and content[braced(content, 0)[1] :]
            out.append(Token("env", name, space, content=content.strip()))
            return found.end()
    raise Unreadable("an environment is not closed")


def _command(name: str, text: str, at: int, space: bool, out: list[Token], depth: int) -> int:
    if name in ("text", "mathrm") or name in _STYLES or name in _DECORATIONS:
        content, at = braced(text, at)
        out.extend(_styled(name, content, space, out, depth))
    elif name in FUNCTIONS and name != "sqrt":
        out.append(Token("fn", name, space))
    elif name in GREEK:
        out.append(Token("let", name, space))
    elif name in ("R", "Z", "Q", "N", "C"):
        out.append(Token("cmd", "set" + name, space))
    elif name in ("pmod", "pod"):
        content, at = braced(text, at)
        out.append(Token("op", "pmod", space))
        out.extend([Token("op", "("), *_maths(content, depth + 1), Token("op", ")")])
    elif name in ("bmod", "mod"):
        out.append(Token("op", "pmod", space))
    else:
        out.append(Token("cmd", name, space))
    return at


def _styled(name: str, content: str, space: bool, out: list[Token], depth: int) -> list[Token]:
    if name == "text":
        return _text(content, space, depth)
    bare = content.strip()
    if name in ("overline", "bar") and re.fullmatch(r"[A-Z]{2,}", bare):
        return [Token("run", bare, space)]
    if name == "overline" and len(bare) == 1:
        name = "bar"
    if name in _DECORATIONS:
        return [Token("let", name + " " + re.sub(r"\\math[a-z]+|[{}\s]", "", bare), space)]
    if name in ("mathbb", "mathbf") and bare in ("R", "Z", "Q", "N", "C") and (name, bare) != ("mathbf", "C"):
        return [Token("cmd", "set" + bare, space)]
    if name == "mathrm":
        return _roman(content, bare, space, out, depth)
    if name == "mathbf" and bare in ("i", "j", "k"):
        return [Token("let", f"hat {bare}", space)]
    if name == "mathcal" and bare == "O":
        return [Token("let", "O", space)]
    if name in ("mathcal", "mathfrak", "mathscr", "mathbb") and len(bare) == 1:
        return [Token("let", f"{name} {bare}", space)]
    return _spaced(_maths(content, depth + 1), space)


def _roman(content: str, bare: str, space: bool, out: list[Token], depth: int) -> list[Token]:
    if bare in ("min", "sec", "deg") and _after_value(out):
        return [Token("word", bare, True)]
    if bare in FUNCTIONS or bare in _ALIASES:
        return [Token("fn", _ALIASES.get(bare, bare), space)]
    if bare == "mod":
        return [Token("op", "pmod", space)]
    if len(bare) == 1 and bare.isalpha():
        return [Token("let", bare, space or content[0] == " ", roman=True)]
    if re.fullmatch(r"[A-Z]{2,}'?", bare):
        return [Token("run", bare, space)]
    if re.fullmatch(r"[\d.\s]+|\\[A-Za-z]+", bare):
        return _spaced(_maths(bare, depth + 1), space)
    return _text(content, space, depth)


def _text(content: str, space: bool, depth: int) -> list[Token]:
    bare = content.strip()
    space = space or content[:1].isspace()
    if len(bare) == 1 and bare.isalpha():
        return [Token("let", bare, space, roman=True)]
    if _MATHS_IN_TEXT.fullmatch(bare) or re.fullmatch(r"\(?[A-Z]\)?", bare) or "$" in bare:
        return _spaced(_maths(bare.replace("$", " "), depth + 1), space)
    if re.fullmatch(r"[A-Z]{2,}", bare):
        return [Token("run", bare, space)]
    if bare in ("lcm", "gcd", "sin", "cos", "tan", "log", "ln", "max", "arcsin", "arccos", "arctan", "cis", "exp"):
        return [Token("fn", bare, space)]
    lettered = all(w in ("and", "or") or (len(w) == 1 and w.isupper()) for w in re.findall(r"[A-Za-z]+", bare))
    out: list[Token] = []
    at = 0
    while at < len(content):
        found = _TEXT_TOKEN.match(content, at)
        assert found is not None
        kind, value, at = found.lastgroup, found[found.lastgroup or 0], found.end()
        if kind == "space":
            space = True
            continue
        if kind == "cmd":
            at = _command(value, content, at, space, out, depth + 1)
        elif kind == "num":
            out.append(number_token(value, space))
        elif lettered and value.lower() not in ("and", "or") and kind == "word":
            out.append(Token("let", value, space, roman=True))
        elif value.lower() in ("mod", "modulo"):
            out.append(Token("op", "pmod", space))
        else:
            out.append(
                Token("word" if kind == "word" else "op", value if kind != "escaped" else _escaped(value), space)
            )
        space = False
    return out


def _spaced(tokens: list[Token], space: bool) -> list[Token]:
    return [tokens[0]._replace(space=space or tokens[0].space), *tokens[1:]] if tokens else []


def _run(run: str, space: bool, out: list[Token], text: str, end: int) -> list[Token]:
    """What a run of letters in mathematics is."""
    if len(run) == 1:
        return [Token("let", run, space)]
    if run == "mod":
        return [Token("op", "pmod", space)]
    if run in FUNCTIONS and not (run in ("min", "deg", "sec") and _after_value(out) and space):
        return [Token("fn" if run != "sqrt" else "cmd", run, space)]
    if run in ("infinity", "infty", "oo", "Infinity"):
        return [Token("cmd", "infty", space)]
    if run in _PLAIN_GREEK and len(run) > 1:
        return [Token("let", run, space)]
    apart = space or not out or out[-1].text in ("/", ",", ";", "(", ")") or out[-1].kind == "word"
    if run in ATTACHED and _after_value(out):
        return [Token("word", run, space)]
    if run in KNOWN_UNITS and apart and _after_value(out):
        return [Token("word", run, space)]
    joins = run in ("and", "or") or text[end:].lstrip()[:1] not in _SIGNS
    if run.lower() in _SMALL_WORDS and apart and joins and not run.isupper():
        return [Token("word", run, space)]
    if len(run) >= 4 and not run.isupper() and not _in_alphabetical_order(run):
        for name in ("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "log", "exp", "ln"):
            rest = run.removeprefix(name)
            if rest != run and len(rest) == 1:
                return [Token("fn", name, space), Token("let", rest)]
        return [Token("word", run, space)]
    return [Token("run", run, space)]


def _in_alphabetical_order(run: str) -> bool:
    return len(run) <= 6 and run.islower() and all(a < b for a, b in pairwise(run))


def _after_value(out: list[Token]) -> bool:
    """Whether what stands before can carry a unit."""
    if not out:
        return False
    last = out[-1]
    return last.kind in ("num", "word") or last.text in (")", "}", "/", "]")
