"""Whether two questions that are alike have the same numbers: what tells apart the questions of one template.

The numbers of a question are a multiset; one behind a minus is another than one without. Where each of the two has a
number that the other has not, they are two questions. Where only one has more, these must stand in sentences that are
foreign to the other question ("Round to 2 places.", or a sentence of the reference that the row lacks). With words that
contrast (least and greatest, sin and cos: `tokens.CONTRASTS`) only the first of these holds.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from ernie_pipeline.data.decontaminate.tokens import (
    CONTRAST_BIT,
    NUMBER_BIT,
    is_number,
    sentences,
    token_hash,
    token_texts,
    tokens_of,
)
from ernie_pipeline.data.normalize.words import Hashes, Positions, Words

FOREIGN = 0.5
"""A sentence of a row is foreign to a reference when fewer of its pairs of tokens stand there."""
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
    sure[unsure] = _agree_by_sentence(
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


def _agree_by_sentence(references: pl.Series, questions: pl.Series, is_some: list[bool]) -> list[bool]:
    """For each pair, whether the reference stands in the row as whole sentences; or, where there is some evidence,
    whether the sentences that are common to both say most of the reference, and with the same numbers."""
    of_references, of_questions = _sentence_tokens(references), _sentence_tokens(questions)
    return [
        _holds(list(chain(*reference)), question) or (some and _say_the_same(reference, question))
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


def _say_the_same(reference: Sentences, row: Sentences) -> bool:
    every, in_row = ({pair for part in some for pair in _neighbours(part)} for some in (reference, row))
    of_reference, of_row = _common(reference, in_row), _common(row, every)
    common = {pair for part in of_row for pair in _neighbours(part)} & every
    numbers = [Counter(token for part in some for token in _signed(part)) for some in (of_reference, of_row)]
    return len(common) >= FOREIGN * len(every) and numbers[0] == numbers[1]


def _common(parts: Sentences, known: set[tuple[str, str]]) -> Sentences:
    """The sentences of which not so few pairs stand in the other question that they are foreign to it."""
    pairs = [_neighbours(part) for part in parts]
    return [
        part
        for part, own in zip(parts, pairs, strict=True)
        if own and sum(pair in known for pair in own) >= FOREIGN * len(own)
    ]


def _neighbours(tokens: list[str]) -> list[tuple[str, str]]:
    return list(zip(tokens, tokens[1:], strict=False))


def _signed(tokens: list[str]) -> list[str]:
    before = ["", *tokens]
    return [f"{'-' * (sign == '-')}{token}" for sign, token in zip(before, tokens, strict=False) if is_number(token)]
