r"""Systematic respellings of maths questions, for measuring decontamination: each keeps what is asked."""

import random
import re
from collections.abc import Callable

Respell = Callable[[str, random.Random], str]

LATEX = (
    (r"\frac{", r"\dfrac{"),
    ("+", " + "),
    ("=", " = "),
    ("<", " < "),
    (r"\cdot", r"\times"),
    (r"\le ", r"\leq "),
    ("(", r"\left("),
    (")", r"\right)"),
    (r"\sqrt", r"\sqrt "),
)
UNICODE = (
    (r"\cdot", "·"),
    (r"\times", "×"),  # noqa: RUF001
    (r"\pi", "π"),
    (r"\le ", "≤ "),
    (r"\ge ", "≥ "),
    ("-", "−"),  # noqa: RUF001
    ("^2", "²"),
    ("^\\circ", "°"),
)
SYNONYMS = {
    "find": "determine", "determine": "find", "compute": "calculate", "evaluate": "compute", "calculate": "compute",
    "how many": "what number of", "buys": "purchases", "bought": "purchased", "gave": "handed", "gives": "hands",
    "each": "every", "total": "overall", "simplify": "reduce", "solve": "work out", "kids": "children", "big": "large",
    "needs": "requires", "makes": "produces", "made": "produced", "begins": "starts", "began": "started", "also": "too",
    "earns": "gets", "spent": "paid", "friends": "pals", "smallest": "least", "largest": "greatest", "what is": "find",
    "if": "suppose", "such that": "so that", "then": "next", "now": "currently", "home": "house",
}  # fmt: skip
PREFIXES = (
    "Problem 3. ",
    "Question 12: ",
    "**Problem 7.** ",
    "4) ",
    "Q5. ",
    "Exercise 2.1. ",
    "[Contest 2019, Problem 8] ",
    "(3 points) ",
)
BEFORE = (
    "Solve the following problem. ",
    "Please answer this question: ",
    "Consider the following. ",
    "Here is a puzzle for you:\n\n",
)
AFTER = (
    " Please reason step by step, and put your final answer within \\boxed{}.",
    "\n\nGive your answer as a single number.",
    " Show your work.",
    " Round your answer to 2 decimal places if needed.",
    " Express your answer in simplest form.",
    "\nAnswer with the number only, without units.",
)
NUMBER_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def latex(text: str, draw: random.Random) -> str:
    r"""`\dfrac`, `\(`, `x^{2}`, `\left(`, spaces around operators."""
    text = text.replace("\\(", "$").replace("\\)", "$")
    for old, new in draw.sample(LATEX, 6):
        text = text.replace(old, new)
    parts = text.split("$") if "\\" in text else [text]
    if len(parts) % 2 and draw.random() < 0.5:
        text = parts[0] + "".join(("\\(", "\\)")[i % 2] + part for i, part in enumerate(parts[1:]))
    return re.sub(r"\^(\w)(?!\w)", r"^{\1}", text)


def unicode_signs(text: str, draw: random.Random) -> str:
    """Unicode for LaTeX and ASCII, curly quotes."""
    for old, new in UNICODE:
        text = text.replace(old, new)
    return text.replace("'", "\u2019")


def plain_fractions(text: str, draw: random.Random) -> str:
    r"""`a/b` for `\frac{a}{b}`, no delimiters."""
    return re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text).replace("$", "")


def spaces(text: str, draw: random.Random) -> str:
    """Other white space."""
    return re.sub(r" ", lambda _: draw.choice((" ", " ", "  ", "\n")), text).replace("+", " + ").strip() + " "


def case(text: str, draw: random.Random) -> str:
    """All in one case."""
    return text.lower() if "\\" in text or draw.random() < 0.5 else text.upper()


def punctuation(text: str, draw: random.Random) -> str:
    """No commas, another end."""
    return re.sub(r",(?= )", "", text).rstrip(" .?") + draw.choice(("", ".", "?", ":", " ?"))


def numbers(text: str, draw: random.Random) -> str:
    """Small numbers in words, thousands with a comma, `5%` as `5 percent`."""
    if "$" not in text and "\\" not in text and "**" not in text:
        text = re.sub(r"(?<![\d.,$^/])\b([2-9]|1[0-2])\b(?![\d.,/%])", lambda m: NUMBER_WORDS[int(m[1]) - 2], text)
    return re.sub(r"\b(\d{1,3})(\d{3})\b", r"\1,\2", text).replace("%", " percent")


def prefixed(text: str, draw: random.Random) -> str:
    """A label before it."""
    return draw.choice(PREFIXES) + text


def instructed(text: str, draw: random.Random) -> str:
    """An instruction behind it, or before it, or both."""
    before, after = draw.choice((("", 1), (1, 1), (1, "")))
    return (draw.choice(BEFORE) if before else "") + text + (draw.choice(AFTER) if after else "")


def synonym(text: str, draw: random.Random) -> str:
    """One or two words by others of the same meaning."""
    there = [word for word in SYNONYMS if re.search(rf"(?i)\b{word}\b", text)]
    for word in draw.sample(there, min(len(there), draw.choice((1, 2)))):
        text = re.sub(rf"(?i)\b{word}\b", SYNONYMS[word], text, count=1)
    return text


def reordered(text: str, draw: random.Random) -> str:
    """The first two sentences, or clauses, change places."""
    parts = re.split(r"(?<=[.!]) ", text)
    if len(parts) > 2:
        return " ".join([parts[1], parts[0], *parts[2:]])
    clauses = re.fullmatch(r"(If|When|Given that|Suppose) ([^?]*), ([^,?]*)\?", text)
    return f"{clauses[3][:1].upper()}{clauses[3][1:]} {clauses[1].lower()} {clauses[2]}?" if clauses else text


def mixed(text: str, draw: random.Random) -> str:
    """Three of these at once."""
    for respell in draw.sample((latex, spaces, case, punctuation, synonym, prefixed, instructed), 3):
        text = respell(text, draw)
    return text


RESPELLINGS: tuple[Respell, ...] = (
    latex, unicode_signs, plain_fractions, spaces, case, punctuation, numbers,
    prefixed, instructed, synonym, reordered, mixed,
)  # fmt: skip
