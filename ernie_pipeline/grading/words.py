"""Words: what two phrases have in common, numbers spelled out, and words around an answer that say nothing."""

import re
from collections.abc import Sequence

from ernie_pipeline.grading.tokens import Token
from ernie_pipeline.grading.word_set import word_set

_ARTICLES = word_set("a an the")
_COPULAS = word_set("is are be")
_PLURALS = word_set(
    "solutions roots squares cubes numbers reals integers primes points values units triangles circles lines"
)
_SAME = {
    "dne": "does not exist",
    "doesn't exist": "does not exist",
    "not exist": "does not exist",
    "no solutions": "no solution",
    "no such solution": "no solution",
    "no solution exists": "no solution",
    "no solutions exist": "no solution",
    "there no solution": "no solution",  # is and are are gone by then
    "there no solutions": "no solution",
    "there no real solution": "no solution",
    "there no real solutions": "no solution",
    "has no solution": "no solution",
    "no real solution": "no solution",  # what is asked is real where nothing else is said
    "no real solutions": "no solution",
    "empty set": "no solution",
    "infinitely many solutions": "infinitely many",
    "infinite solutions": "infinitely many",
    "infinite many": "infinitely many",
    "infinitely many solution": "infinitely many",
    "converges": "convergent",
    "diverges": "divergent",
    "none": "no solution",
    "infinite": "infinitely many",
    "no real roots": "no solution",
    "no real root": "no solution",
    "right angled triangle": "right triangle",
}
_LEADING = word_set(
    "the answer is final therefore so thus hence equals total area get we have option choice",
    "that value result of its it sum",
)
_ALL = re.compile(r"(?:for )?all(?: (?:(real|integer)(?:s| numbers| values of)?|numbers|values of))?")
_QUALIFIERS = re.compile(r"for (?:all|any|every|each|some|integer|integers|real|arbitrary)|where|with|here")


def phrase(words: Sequence[str]) -> tuple[str, ...]:
    """The words in lower case, without articles, common variants in one form."""
    kept = [word.lower() for word in words if word.lower() not in _ARTICLES or len(words) == 1]
    kept = [word for word in kept if word not in _COPULAS] or kept
    text = " ".join(kept).replace("-", " ")
    text = " ".join(_singular(word) for word in _SAME.get(text, text).split())
    return tuple(_SAME.get(text, text).split())


def _singular(word: str) -> str:
    return word[:-1] if word in _PLURALS else word


def without_frame(tokens: list[Token]) -> list[Token]:
    """Without "the answer is" before an answer, and "for all x", "where c is a constant" behind it."""
    first = next((at for at, token in enumerate(tokens) if token.kind == "let"), 0)
    related = any(token.text in ("<", ">", "le", "ge", "ne") for token in tokens[first + 1 : first + 2])
    every = _ALL.fullmatch(" ".join(token.text.lower() for token in tokens[:first])) if related else None
    if every:
        tokens = tokens[first:]
        if every[1]:  # all integers n > 6: n > 6, n in Z
            among = Token("cmd", "setZ" if every[1] == "integer" else "setR")
            tokens = [*tokens, Token("op", ","), tokens[0], Token("cmd", "in"), among]
    start = 0
    while start < len(tokens) and tokens[start].kind == "word" and tokens[start].text.lower() in _LEADING:
        start += 1
    rest = [token for token in tokens[start:] if token.text not in "()"]
    if start and len(rest) == 1 and re.fullmatch("[A-Z]", rest[0].text):
        return [Token("let", rest[0].text, roman=True)]
    if start == len(tokens) or (start and (tokens[start].kind == "word" or tokens[start].text in ("=", "approx"))):
        start = 0
    elif start and tokens[start].text == ":":
        start += 1
    if len(tokens) > start + 1 and tokens[-1].text.lower() == "only" and tokens[-1].kind == "word":
        tokens = tokens[:-1]
    for at in range(start + 1, len(tokens)):
        if tokens[at].kind != "word":
            continue
        following = " ".join(token.text.lower() for token in tokens[at : at + 2])
        if _QUALIFIERS.match(following) and tokens[at - 1].kind != "word":
            end = at - 1 if tokens[at - 1].text in (",", ";", "(") else at
            return tokens[start:end] if end > start else tokens[start:]
    return tokens[start:]
