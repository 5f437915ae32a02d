r"""Questions as tokens that are the same however a question is spelled: LaTeX, Unicode, spacing, case and punctuation.

A token is a number, a word or a symbol. What only sets type is no token (delimiters, braces and brackets, spacing and
font commands, commas, `_`), nor is `\cdot` but between numbers, since it may be left out, nor what any question asks
with ("find", "what is"). `\dfrac{a}{b}`, `\frac ab` and `a/b` are `a / b`; `x^{2}` and `x²` are `x ^ 2`; `1{,}000`,
`1,000` and `1000` are one number, and so are `2.50` and `2.5`, `twelve` and `12`. A currency's sign and name go,
`percent` is `%`. The label of a question ("Problem 3.", "(b)") is not part of it.

Where tokens begin and end is decided by patterns over the texts (`spelled.py`); what each is called, over the few
distinct ones (`names.py`).
"""

import numpy as np
import polars as pl

from ernie_pipeline.data.decontaminate.names import CONTRASTS, NAMES, NOTHING
from ernie_pipeline.data.decontaminate.spelled import spelled
from ernie_pipeline.data.normalize.words import Words, split_words, word_hash

NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
TOKEN = rf"{NUMBER}|\\\p{{L}}+|\p{{L}}[\p{{L}}\p{{M}}]*|<=|>=|!=|[-+/=<>^|%!]|\p{{Sm}}"

NUMBER_BIT, CONTRAST_BIT = 1, 2


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


def _token_lists(questions: pl.Series) -> pl.Series:
    return spelled(questions).str.extract_all(TOKEN)
