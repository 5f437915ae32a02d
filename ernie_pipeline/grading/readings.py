r"""What the text of an answer says: one reading, or two where a comma may group digits."""

import re
from functools import lru_cache

from ernie_pipeline.grading.reader import read
from ernie_pipeline.grading.structure import Items, Unread, Value
from ernie_pipeline.grading.tokens import Unreadable, tokenize

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


LONGEST, DEEPEST = 4000, 40
"""Characters and nested brackets up to which a text is read; what has more is equal to the same text alone."""


@lru_cache(maxsize=8192)
def readings(text: str) -> tuple[Value, ...]:
    """What the normalised text of an answer says: one reading, or two where a comma may group digits."""
    if len(text) > LONGEST or _nesting(text) > DEEPEST:
        return (Unread(re.sub(r"\s", "", text)),)
    joined = _GROUPED.sub(_without_commas, text)
    first = _read_text(joined)
    if joined == text or re.search(r"(?<=\d),0", text):
        return (first,)
    return (first, _read_text(text))


def wanted(text: str) -> tuple[Value, ...]:
    """The readings of a reference answer: 3,400 is 3400, or the list 3, 400 in this order."""
    first, *others = readings(text)
    return (first, *(Items("sequence", v.items) if isinstance(v, Items) and v.kind == "list" else v for v in others))


def _without_commas(found: re.Match[str]) -> str:
    """A grouped number; (1,100) and {1,100} are pairs."""
    text, start, end = found.string, found.start(), found.end()
    paired = text[:start].rstrip()[-1:] in ("(", "[") or text[:start].rstrip().endswith(r"\{")
    alone = paired and text[end:].lstrip()[:1] in (")", "]", "\\")
    return found[0] if alone else found[0].replace(",", "")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _read_text(text: str) -> Value:
    try:
        return read(tokenize(text))
    except Unreadable:
        return Unread(re.sub(r"\s", "", text))
    except Exception:  # a fault of ours must not end the grading of all the others
        return Unread(re.sub(r"\s", "", text))
