r"""Questions as sequences of words, and of the hashes of their words, for near duplicates and decontamination.

What a word is. open-r1's `scripts/decontaminate.py` (8-grams) lower-cases and parts at white space; datatrove's
`simplify_text` lower-cases, removes punctuation and makes every number 0. Here numbers and formulas must stay what they
are, but how they are typeset must not matter. So: lower case, Unicode form NFKC (only where a text is not ASCII, which
it leaves alone); the white space around an operator goes, so that `3x + 5` is one word like `3x+5`, and another than
`3x-5`; then each run of letters, digits and operators is a word, with a decimal point inside a number. All else parts
words: white space, punctuation, `$`, brackets, and the backslash of LaTeX's commands. A formula is therefore about as
many words as white space makes of it in print, and the numbers of words that others use keep their meaning.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]

OPERATOR = r"[-+*/=<>^_]|[\p{Sm}--[|~]]"
WORD = r"[\p{L}\p{M}\p{N}\p{Sm}|%*/^_-]+(?:\.\p{N}+)*"
BASE = np.uint64(0x9E3779B97F4A7C15)
"""Of the polynomial over the word hashes: odd, so that multiplying loses nothing; 2**64 over the golden ratio."""
CHUNK_ROWS = 16_384
TEXTS_AT_ONCE = 8192
THREADS = 2


@dataclass(frozen=True)
class Words:
    """The words of some rows. `codes` [words]: each word's position in `vocabulary`; row i has those from `offsets[i]`
    up to `offsets[i + 1]`. `vocabulary` [distinct words]: each word's hash, the same in every run and on every machine.
    """

    codes: NDArray[np.uint32]
    offsets: Positions
    vocabulary: Hashes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Positions:
        """The number of words of each row."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.integer]) -> "Words":
        """The words of these rows, in this order."""
        lengths, starts = self.lengths[rows], self.offsets[:-1][rows]
        offsets = _offsets(lengths)
        codes = np.empty(offsets[-1], np.uint32)
        for first in range(0, len(rows), CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            position = offsets[first]
            chosen = self.codes[spread(starts[part], lengths[part])]
            codes[position : position + len(chosen)] = chosen
        return Words(codes, offsets, self.vocabulary)

    def chunks(self) -> Iterator[tuple[int, "Words"]]:
        """(number of its first row, words) of each run of rows, so that what is computed of them stays small."""
        for start in range(0, len(self), CHUNK_ROWS):
            offsets = self.offsets[start : start + CHUNK_ROWS + 1]
            yield start, Words(self.codes[offsets[0] : offsets[-1]], offsets - offsets[0], self.vocabulary)


def split_words(
    questions: pl.Series,
    lists: Callable[[pl.Series], pl.Series] | None = None,
    hash_of: Callable[[str], int] | None = None,
) -> Words:
    """The words of each question; a null has none. `lists` parts texts, and `hash_of` hashes words, otherwise than
    here: words of one hash are one word.
    """
    part_texts, hashed = lists or _lists, hash_of or word_hash
    categories = pl.Categories.random(physical=pl.UInt32)
    parts = [questions[start : start + TEXTS_AT_ONCE] for start in range(0, len(questions), TEXTS_AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        coded = list(pool.map(lambda part: _coded(part_texts(part), categories), parts))
    known: dict[int, str] = {}
    for _, _, distinct in coded:
        known.update(zip(distinct.to_physical(), distinct.cast(pl.String), strict=True))
    vocabulary = np.zeros(max(known, default=-1) + 1, np.uint64)
    for code, word in known.items():
        vocabulary[code] = hashed(word)
    codes = np.concatenate([np.empty(0, np.uint32), *(codes for codes, _, _ in coded)])
    lengths = np.concatenate([np.empty(0, np.uint32), *(lengths for _, lengths, _ in coded)])
    return Words(codes, _offsets(lengths), vocabulary)


def word_lists(questions: pl.Series) -> list[list[str]]:
    """The words of each question, as texts."""
    return [words or [] for words in _lists(questions).to_list()]


def word_hash(word: str) -> int:
    """64 bits of the word's BLAKE2b hash: Polars' own hash may differ between its versions."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def ngrams(words: Words, n: int) -> tuple[Hashes, Positions]:
    """(hashes, offsets as in `Words`) of each row's runs of `n` words; of a shorter row, its whole as the only one.

    A run's hash is a polynomial over the hashes of its words, modulo 2**64. A row without words has no run.
    """
    counts = run_counts(words.lengths, n)
    offsets = _offsets(counts)
    hashes: Hashes = np.empty(offsets[-1], np.uint64)
    for start, part in words.chunks():  # so that what is in between stays in the processor's cache
        hashes[offsets[start] : offsets[start + len(part)]] = _ngrams(part, n)
    return hashes, offsets


def run_counts(lengths: Positions, n: int) -> Positions:
    """How many runs of `n` words rows of these lengths have, as `ngrams` counts them."""
    return np.where(lengths >= n, lengths - n + 1, np.minimum(lengths, 1))


def rolling_hashes(words: Words, n: int) -> Iterator[tuple[int, Hashes]]:
    """(length, hash of the run of that many words from each place on) for the lengths 1 to `n`, across row ends too."""
    of_words = words.vocabulary[words.codes]
    hashes = of_words
    yield 1, hashes
    for length in range(2, min(n, len(of_words)) + 1):
        hashes = hashes[:-1] * BASE + of_words[length - 1 :]
        yield length, hashes


def _ngrams(words: Words, n: int) -> Hashes:
    lengths = words.lengths
    counts = run_counts(lengths, n)
    positions = spread(words.offsets[:-1], counts)
    run_lengths = np.repeat(np.minimum(lengths, n), counts)
    runs: Hashes = np.empty(len(positions), np.uint64)
    for length, hashes in rolling_hashes(words, n):
        at = np.flatnonzero(run_lengths == length)
        runs[at] = hashes[positions[at]]
    return runs


def spread(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> Positions:
    """`counts[i]` consecutive numbers from `starts[i]` on, for each i in turn."""
    offsets = _offsets(counts)
    return np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])


def _offsets(lengths: NDArray[np.integer]) -> Positions:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _coded(lists: pl.Series, categories: pl.Categories) -> tuple[NDArray[np.uint32], NDArray[np.uint32], pl.Series]:
    """(code of each word, number of words of each question, the distinct words) of the questions' lists of words."""
    words = lists.explode(empty_as_null=False, keep_nulls=False).cast(pl.Categorical(categories))
    lengths = lists.list.len().fill_null(0)
    return words.to_physical().to_numpy(), lengths.to_numpy(), words.unique()


def _lists(questions: pl.Series) -> pl.Series:
    joined = _normalised(questions).str.to_lowercase().str.replace_all(rf"\s*({OPERATOR})\s*", "$1")
    return joined.str.extract_all(WORD)


def _normalised(questions: pl.Series) -> pl.Series:
    """In NFKC with one kind of minus sign. Only the texts that are not ASCII are touched: on the others it is slow."""
    other = (questions.str.len_bytes() != questions.str.len_chars()).arg_true()
    if other.is_empty():
        return questions
    forms = questions.gather(other).str.normalize("NFKC").str.replace_all("−", "-", literal=True)  # noqa: RUF001
    return questions.clone().scatter(other, forms)
