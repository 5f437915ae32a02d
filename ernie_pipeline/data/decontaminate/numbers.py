"""Whether two questions that are alike have the same numbers: what tells apart the questions of one template.

The numbers of a question are a multiset; one behind a minus is another than one without. Where each of the two has a
number that the other has not, they are two questions. Where only one has more, these must stand before the first or
behind the last words that both share, and be a text of their own: "Example 4", "(2014 AIME I)", "Round to 2 places.";
not "+ 3". With words that contrast (least and greatest, sin and cos: `tokens.CONTRASTS`) only the first of these
holds.
"""

from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from ernie_pipeline.data.decontaminate.spelled import sentences
from ernie_pipeline.data.decontaminate.tokens import (
    CONTRAST_BIT,
    NUMBER_BIT,
    is_number,
    token_hash,
    token_texts,
    tokens_of,
)
from ernie_pipeline.data.normalize.words import Hashes, Positions, Words

LOOSE = 2.0
"""Lengths of the reference over which what it shares with a row may be spread there."""
LONG, NEARLY_ALL = 20, 0.75
"""Tokens of a reference, of which that share stands in the row, where one number may be lost in a word ("there")."""
FEWEST_BEFORE, FEWEST_BEHIND = 1, 2
"""Words that numbers beside what is shared must have with them: "Example 4", "round to 2 places", but not "and 24"."""
OPERATORS = frozenset("+-/=<>^|%×") | {"<=", ">=", "!="}  # noqa: RUF001
SENTENCE, SENTENCE_WITH_A_NUMBER = 5, 2
"""The fewest tokens of a reference that is looked for as a sentence of a row."""
SIGN = np.uint64(0x94D049BB133111EB)
AGAIN = np.uint64(0x9E3779B97F4A7C15)

Sentences = list[list[str]]
"""The tokens of each sentence of a question."""


@dataclass(frozen=True)
class Texts:
    """Questions with their tokens."""

    questions: pl.Series
    tokens: Words

    @classmethod
    def of(cls, questions: pl.Series) -> "Texts":
        """The texts with the tokens of `tokens.py`."""
        return cls(questions, tokens_of(questions))


def agreeing(pairs: pl.DataFrame, known: Texts, asked: Texts) -> pl.DataFrame:
    """Of `PAIRS`, those of one question: `reference`, `index`, `score`."""
    missing, more = _differences(pairs, known.tokens, asked.tokens, NUMBER_BIT)
    other, another = _differences(pairs, known.tokens, asked.tokens, CONTRAST_BIT)
    may_be = ((missing == 0) | (more == 0)) & ((other == 0) | (another == 0))
    sure = may_be & pairs["is_much"].to_numpy() & (missing + more == 0)
    unsure = np.flatnonzero(may_be & ~sure)
    some = pairs[unsure]
    sure[unsure] = _agree_by_place(
        known.questions.gather(some["reference"]), asked.questions.gather(some["index"]), some["is_some"].to_list()
    )
    return pairs.filter(pl.Series(sure)).select("reference", "index", "score")


def _differences(pairs: pl.DataFrame, known: Words, asked: Words, kind: int) -> tuple[Positions, Positions]:
    """(tokens of a kind that only the reference has, those that only the row has), for each pair: how many."""
    references, left = np.unique(pairs["reference"].to_numpy(), return_inverse=True)
    rows, right = np.unique(pairs["index"].to_numpy(), return_inverse=True)
    of_references, of_rows = _of_kind(known.take(references), kind), _of_kind(asked.take(rows), kind)
    every, codes = np.unique(np.concatenate([of_references[1], of_rows[1]]), return_inverse=True)
    split = len(of_references[1])
    one = _ones(of_references[0], codes[:split], (len(references), len(every)))
    other = _ones(of_rows[0], codes[split:], (len(rows), len(every)))
    common = _row_sums(one[left].multiply(other[right]))
    return _row_sums(one)[left] - common, _row_sums(other)[right] - common


def _of_kind(words: Words, kind: int) -> tuple[Positions, Hashes]:
    """(row, hash of the token, its sign and how often it has come in the row) of each token of that kind."""
    hashes = words.vocabulary[words.codes]
    owners = np.repeat(np.arange(len(words)), words.lengths)
    at = np.flatnonzero(hashes & np.uint64(kind))
    before = np.maximum(at - 1, 0)
    is_negative = (hashes[before] == np.uint64(token_hash("-"))) & (owners[before] == owners[at]) & (at > 0)
    table = pl.DataFrame({"row": owners[at], "number": np.where(is_negative, hashes[at] * SIGN, hashes[at])})
    again = table.select(pl.int_range(pl.len(), dtype=pl.UInt64).over("row", "number")).to_series().to_numpy()
    return owners[at], table["number"].to_numpy() + again * AGAIN


def _ones(rows: Positions, columns: Positions, shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape)


def _row_sums(matrix: csr_array) -> Positions:
    return np.asarray(matrix.sum(axis=1), np.int64).ravel()


def _agree_by_place(references: pl.Series, questions: pl.Series, is_some: list[bool]) -> list[bool]:
    """For each pair, whether the reference stands in the row as whole sentences; or, where there is some evidence,
    whether they have the same numbers between the first and the last words that they share."""
    of_references, of_questions = token_texts(references), _sentence_tokens(questions)
    return [
        _holds(reference, question) or (some and _span_agrees(reference, list(chain(*question))))
        for reference, question, some in zip(of_references, of_questions, is_some, strict=True)
    ]


def _sentence_tokens(questions: pl.Series) -> list[list[list[str]]]:
    """The tokens of each sentence of each question."""
    parts = [sentences(question) for question in questions]
    tokens = iter(token_texts(pl.Series(list(chain(*parts)), dtype=pl.String)))
    return [[next(tokens) for _ in some] for some in parts]


def _holds(reference: list[str], row: Sentences) -> bool:
    """Whether the tokens of the reference are those of sentences in a row."""
    if len(reference) < (SENTENCE_WITH_A_NUMBER if any(map(is_number, reference)) else SENTENCE):
        return False
    for first in range(len(row)):
        run: list[str] = []
        for part in row[first:]:
            run += part
            if len(run) >= len(reference):
                break
        if run == reference:
            return True
    return False


def _span_agrees(reference: list[str], row: list[str]) -> bool:
    """Whether what the two share stands close together in the row, and each number beside it is of something else."""
    blocks = [match for match in SequenceMatcher(None, reference, row, False).get_matching_blocks() if match.size > 1]
    if not blocks:
        return False
    first, last = blocks[0], blocks[-1]
    of_reference, of_row = slice(first.a, last.a + last.size), slice(first.b, last.b + last.size)
    spans = reference[of_reference], row[of_row]
    if len(spans[1]) > LOOSE * len(reference):
        return False
    lost = Counter(_signed(spans[0])) - Counter(_signed(row)), Counter(_signed(spans[1])) - Counter(_signed(reference))
    most = 1 if len(reference) >= LONG and sum(match.size for match in blocks) >= NEARLY_ALL * len(reference) else 0
    same = lost[0].total() + lost[1].total() <= most
    return same and _is_beside(reference, of_reference) and _is_beside(row, of_row)


def _is_beside(tokens: list[str], span: slice) -> bool:
    """Whether what stands beside the span has no number, or is a text of its own and no part of a formula."""
    head, tail = tokens[: span.start], tokens[span.stop :]
    return _is_text(head, head[-1:], FEWEST_BEFORE) and _is_text(tail, tail[:1], FEWEST_BEHIND)


def _is_text(tokens: list[str], border: list[str], fewest: int) -> bool:
    if not any(map(is_number, tokens)):
        return True
    words = sum(len(token) > 1 and token[0].isalpha() for token in tokens)
    return words >= fewest and not (border and border[0] in OPERATORS)


def _signed(tokens: list[str]) -> list[str]:
    before = ["", *tokens]
    return [f"{'-' * (sign == '-')}{token}" for sign, token in zip(before, tokens, strict=False) if is_number(token)]
