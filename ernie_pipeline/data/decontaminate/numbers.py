"""Whether two questions that are alike have the same numbers: what tells apart the questions of one template.

The numbers of a question are a multiset; one behind a minus is another than one without. Where each question has a
number that the other has not, they are two questions. Where the row lacks numbers, it may lack a quarter of them (it is a
part of the reference). Where the row has more, they must stand in sentences of their own ("Round to 2 places.").
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from ernie_pipeline.data.decontaminate.tokens import is_number, sentences, token_hash, token_texts, tokens_of
from ernie_pipeline.data.normalize.words import Hashes, Positions, Words

MOST_MISSING = 0.25
FOREIGN = 0.5
"""A sentence of a row is foreign to a reference when fewer of its pairs of tokens stand there."""
SIGN = np.uint64(0x94D049BB133111EB)
AGAIN = np.uint64(0x9E3779B97F4A7C15)


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
    missing, more, numbers = _differences(pairs, known.tokens, asked.tokens)
    may_be = ((missing == 0) | (more == 0)) & (missing <= MOST_MISSING * numbers)
    is_much, is_whole = pairs["is_much"].to_numpy(), pairs["is_whole"].to_numpy()
    sure = may_be & is_much & (more == 0)
    unsure = np.flatnonzero(may_be & ~sure & (is_much | is_whole))
    some = pairs[unsure]
    sure[unsure] = _stand_apart(
        known.questions.gather(some["reference"]), asked.questions.gather(some["index"]), some["is_much"].to_list()
    )
    return pairs.filter(pl.Series(sure)).select("reference", "index", "score")


def _differences(pairs: pl.DataFrame, known: Words, asked: Words) -> tuple[Positions, Positions, Positions]:
    """(numbers that only the reference has, numbers that only the row has, all of the reference), for each pair."""
    references, left = np.unique(pairs["reference"].to_numpy(), return_inverse=True)
    rows, right = np.unique(pairs["index"].to_numpy(), return_inverse=True)
    of_references, of_rows = _numbers(known.take(references)), _numbers(asked.take(rows))
    every, codes = np.unique(np.concatenate([of_references[1], of_rows[1]]), return_inverse=True)
    split = len(of_references[1])
    one = _ones(of_references[0], codes[:split], (len(references), len(every)))
    other = _ones(of_rows[0], codes[split:], (len(rows), len(every)))
    common = _row_sums(one[left].multiply(other[right]))
    return _row_sums(one)[left] - common, _row_sums(other)[right] - common, _row_sums(one)[left]


def _numbers(words: Words) -> tuple[Positions, Hashes]:
    """(row, hash of number, sign and how often it has come in the row) of each number."""
    hashes = words.vocabulary[words.codes]
    owners = np.repeat(np.arange(len(words)), words.lengths)
    at = np.flatnonzero(hashes & np.uint64(1))
    before = np.maximum(at - 1, 0)
    is_negative = (hashes[before] == np.uint64(token_hash("-"))) & (owners[before] == owners[at]) & (at > 0)
    table = pl.DataFrame({"row": owners[at], "number": np.where(is_negative, hashes[at] * SIGN, hashes[at])})
    again = table.select(pl.int_range(pl.len(), dtype=pl.UInt64).over("row", "number")).to_series().to_numpy()
    return owners[at], table["number"].to_numpy() + again * AGAIN


def _ones(rows: Positions, columns: Positions, shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape)


def _row_sums(matrix: csr_array) -> Positions:
    return np.asarray(matrix.sum(axis=1), np.int64).ravel()


def _stand_apart(references: pl.Series, questions: pl.Series, is_much: list[bool]) -> list[bool]:
    """For each pair, whether the reference stands in the row as whole sentences; or, where much is shared, whether the
    numbers that only the row has stand in sentences that are foreign to the reference."""
    parts = [sentences(question) for question in questions]
    tokens = iter(token_texts(pl.Series([part for some in parts for part in some], dtype=pl.String)))
    found = []
    for reference, some, much in zip(token_texts(references), parts, is_much, strict=True):
        of_row = [next(tokens) for _ in some]
        found.append(_holds(reference, of_row) or (much and _numbers_stand(reference, of_row)))
    return found


def _holds(reference: list[str], row: list[list[str]]) -> bool:
    """Whether the tokens of the reference are those of sentences in a row."""
    for first in range(len(row)):
        run: list[str] = []
        for part in row[first:]:
            run += part
            if len(run) >= len(reference):
                break
        if run == reference:
            return True
    return False


def _numbers_stand(reference: list[str], row: list[list[str]]) -> bool:
    known = set(_neighbours(reference))
    own = Counter[str]()
    for part in row:
        pairs = _neighbours(part)
        if pairs and sum(pair in known for pair in pairs) >= FOREIGN * len(pairs):
            own.update(_signed(part))
    return own <= Counter(_signed(reference))


def _neighbours(tokens: list[str]) -> list[tuple[str, str]]:
    return list(zip(tokens, tokens[1:], strict=False))


def _signed(tokens: list[str]) -> list[str]:
    before = ["", *tokens]
    return [f"{'-' * (sign == '-')}{token}" for sign, token in zip(before, tokens, strict=False) if is_number(token)]
