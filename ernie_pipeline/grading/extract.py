r"""From a model's whole output to the text of its answer.

A box says what the answer is; several that disagree are a hedge, which judge.py tells. Without a box the answer is
looked for where people put it: behind "the answer is", in bold type, in the last formula, in the last number.
"""

import re

_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_MARK = re.compile(
    r"####|(?:final answer|answer|result|solution|value)s?\**\s*(?:is|are|was|equals|:|=)+\**\s*"
    r"(?:therefore|thus|simply)?\s*:?",
    re.IGNORECASE,
)
_BOLD = r"\*\*[^*\n]{1,200}\*\*"
_FORMULA = (
    r"\$\$[^$]{1,400}\$\$|(?<!\\)\$(?!\s)[^$\n]{1,400}?(?<![\s\\])\$(?!\d)|\\\([^)]{0,400}?\\\)|\\\[.{1,400}?\\\]"
)
_JOINT = r"\s*(?:,|;|or|and|,\s*or|,\s*and)\s*"
_BOLDS = re.compile(rf"{_BOLD}(?:{_JOINT}{_BOLD})*", re.DOTALL)
_FORMULAS = re.compile(rf"(?:{_FORMULA})(?:{_JOINT}(?:{_FORMULA}))*", re.DOTALL)
_NUMBER = r"[-+\u2212]?\$?\d+(?:,\d{3})*(?:\.\d+)?(?:\s*/\s*\d+)?(?:\s?\\?%)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:\s+(?:or|and)\s+{_NUMBER})*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z$\\*])|\n+")
_DENIED = re.compile(r"(?:\bnot|n't|\bnever)\s+$", re.IGNORECASE)
_LENGTH = 2000
"""Characters at the end of an output without a box in which its answer is looked for."""


def spoken(output: str) -> str:
    """The output without its thoughts, where something follows them."""
    said = _THOUGHT.sub("", output)
    return said if said.strip() else output


def boxes(output: str) -> list[str]:
    r"""What each `\boxed{...}` with balanced braces holds, in order; of nested ones, the innermost."""
    found: list[tuple[int, str]] = []
    last = -1
    opened: list[tuple[bool, int]] = []
    for token in _BRACES.finditer(output):
        if token.lastgroup == "close" and opened:
            is_box, inside = opened.pop()
            if is_box and last < inside:
                last = inside
                found.append((inside, output[inside : token.start()]))
        elif token.lastgroup in ("box", "open"):
            opened.append((token.lastgroup == "box", token.end()))
    return [text for _, text in sorted(found)]


def breaks_off(output: str) -> bool:
    r"""Whether the last box is begun and never closed, as where the limit of tokens cut the output off."""
    opened: list[bool] = []
    for token in _BRACES.finditer(output):
        if token.lastgroup == "close" and opened:
            opened.pop()
        elif token.lastgroup in ("box", "open"):
            opened.append(token.lastgroup == "box")
    return any(opened)


def last_boxed(answer: str) -> str | None:
    r"""What the last `\boxed{...}` with balanced braces holds, or None; of nested ones, the innermost."""
    found = boxes(answer)
    return found[-1] if found else None


def without_box(output: str) -> str | None:
    """The answer in an output that has no box; None where there is none."""
    text = output[-_LENGTH:].strip()
    if not text:
        return None
    marks = list(_MARK.finditer(text))
    if marks:
        rest = text[marks[-1].end() :].strip()
        said = _first_sentence(rest)
        if said:
            return _FORMULAS.match(said)[0] if _FORMULAS.match(said) else said  # type: ignore[index]
    sentences = [sentence for sentence in _SENTENCE.split(text) if sentence and sentence.strip()]
    if len(sentences) == 1 and (len(text) <= 60 and _is_mathematics(text)):
        return text
    for pattern in (_BOLDS, _FORMULAS):
        found = list(pattern.finditer(text))
        if found:
            return found[-1][0]
    if len(sentences[-1]) <= 60 and _is_mathematics(sentences[-1]):
        return sentences[-1]
    numbers = list(_NUMBERS.finditer(text))
    if numbers:
        denied = _DENIED.search(text[: numbers[-1].start()])
        return text[denied.start() : numbers[-1].end()] if denied else numbers[-1][0]
    return text if len(text.split()) <= 2 and len(sentences) == 1 else None


def _first_sentence(text: str) -> str:
    first = _SENTENCE.split(text, maxsplit=1)[0].strip() if text else ""
    first = first.removesuffix("**") if first.count("**") == 1 else first
    return first.rstrip(".") if not first.endswith("...") else first


def _is_mathematics(text: str) -> bool:
    """Whether a text has no word of its own: "12 + 35 = 47.", "x = -2", but not "It costs $12.50."."""
    plain = re.sub(r"\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    words = [
        w for w in re.findall(r"[A-Za-z]{2,}", plain) if w.lower() not in ("or", "and", "sqrt", "pi", "sin", "cos")
    ]
    return not words and any(char.isalnum() for char in text)
