from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from ernie_pipeline.data.normalize.words import Words, ngrams, split_words, word_hash, word_lists


def words_of(question: str) -> list[str]:
    return word_lists(pl.Series([question]))[0]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is 12 + 35?", "what is 12+35"),
        ("3x - 5 = 2", "3x-5=2"),
        (r"Find \( \sqrt{2x} \), please.", "find sqrt 2x please"),
        ("It's $3.50, or 1,000!", "it s 3.50 or 1 000"),
        ("the 2nd two-digit ﬁgure", "the 2nd two-digit figure"),
        ("x ≤ 5, |x| = 50%", "x≤5 |x|=50%"),
        ("?! ... $", ""),
    ],
)
def test_what_a_word_is(question: str, words: str) -> None:
    assert words_of(question) == words.split()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("If 3x+5 = 20, find x", "if $3x + 5=20$ , find  X."),
        ("f(x+y)=f(x)+f(y)", r"\( f(x + y) = f(x) + f(y) \)"),
        ("3x \u2212 5", "3x-5"),
        ("\uff21\uff22 \uff11\uff12", "ab 12"),
    ],
)
def test_typesetting_makes_no_other_words(one: str, other: str) -> None:
    assert words_of(one) == words_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("3x+5", "3x-5"), ("x^2", "x2"), ("3.5", "35"), ("3.5", "3 5"), ("2(x+1)", "2x+1"), ("x<1", "x>1")],
)
def test_other_mathematics_is_other_words(one: str, other: str) -> None:
    assert words_of(one) != words_of(other)


def test_hashes_are_those_of_the_words_in_their_order() -> None:
    words = split_words(pl.Series(["b a b", None, "", "c"]))
    expected = [word_hash(word) for word in "babc"]
    assert words.vocabulary[words.codes].tolist() == expected
    assert words.lengths.tolist() == [3, 0, 0, 1]
    assert word_hash("natalia") == int.from_bytes(bytes.fromhex("86fb7d4681bdf737"), "little")  # b2sum -l 64


def test_rows_can_be_taken_in_any_order() -> None:
    questions = pl.Series(["one", "two words", "", "and three words"])
    order = np.array([3, 0, 2, 3])
    taken, expected = split_words(questions).take(order), split_words(questions.gather(order))
    assert taken.vocabulary[taken.codes].tolist() == expected.vocabulary[expected.codes].tolist()
    assert taken.offsets.tolist() == expected.offsets.tolist()


def test_runs_of_words_do_not_cross_a_rows_end() -> None:
    hashes, offsets = ngrams(split_words(pl.Series(["a b c d", "c d a", "a b", "", "x b c d y"])), 3)
    assert np.diff(offsets).tolist() == [2, 1, 1, 0, 3]
    rows = [set(hashes[start:end].tolist()) for start, end in pairwise(offsets)]
    assert len(rows[0] & rows[4]) == 1  # "b c d"
    assert len(set().union(*rows)) == 6
    assert (rows[1] | rows[2]).isdisjoint(rows[0] | rows[4])


def test_the_order_of_words_counts() -> None:
    hashes, _ = ngrams(split_words(pl.Series(["a b c", "b a c", "c b a", "a b c"])), 3)
    assert len(set(hashes.tolist())) == 3


def test_many_rows_are_the_same_as_few() -> None:
    questions = pl.Series([f"question {i} of {i % 7} é" for i in range(40_000)])
    words = split_words(questions)
    few = split_words(questions[39_990:])
    last = words.take(np.arange(39_990, 40_000))
    assert isinstance(last, Words)
    assert ngrams(last, 2)[0].tolist() == ngrams(few, 2)[0].tolist() == ngrams(words, 2)[0][-40:].tolist()
