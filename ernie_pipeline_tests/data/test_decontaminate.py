import random
import time

import numpy as np
import polars as pl
import pytest

from ernie_pipeline.data.decontaminate import pairs, weights
from ernie_pipeline.data.decontaminate.overlap import EVALUATION, OVERLAPS, decontaminate, overlaps, references_of
from ernie_pipeline.data.decontaminate.weights import FeatureTable, Source
from ernie_pipeline.data.filter.reasons import DROPPED
from ernie_pipeline.recipe.sections import Decontamination

OVERLAP = Decontamination().overlap
TRAIN = "A train leaves the station at 9 am and arrives at noon. How long does it travel?"
CUBE = r"If $x^2 = 49$ and $x>0$, what is the cube of the number $x$?"
STOCK = r"can be written as $\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
URN = (
    "An urn holds 5 amber and 7 violet marbles, and Nadia draws 3 of them at once. The probability that no two have "
    f"the same colour {STOCK}"
)


def references(*questions: str, name: str = "MATH-500") -> pl.DataFrame:
    rows = [(name, row, question) for row, question in enumerate(questions, start=1)]
    return pl.DataFrame(rows, schema=["set", "row", "question"], orient="row").cast({"row": pl.Int64})


def rows_of(*questions: str) -> pl.DataFrame:
    return pl.DataFrame({"line": range(1, len(questions) + 1), "question": questions, "expected_answer": "3"})


def is_hit(row: str, *known: str) -> bool:
    return not overlaps(rows_of(row), references(*known), OVERLAP).is_empty()


SPELLINGS = {
    "dfrac": (r"Simplify $\frac{8}{22}$.", r"Simplify $\dfrac{8}{22}$."),
    "frac without braces": (r"What is $\frac{1}{2}+\frac{3}{4}$?", r"What is $\frac12 + \frac 34$?"),
    "nested fractions": (r"Simplify $\frac{\sqrt{3}}{\frac{2}{7}}$.", r"Simplify $\dfrac{\sqrt 3}{2/7}$"),
    "a fraction in text": (r"Simplify $\frac{8}{22}$.", "simplify 8/22"),
    "braces of an exponent": (CUBE, r"If $x^{2} = 49$ and $x > 0$, what is the cube of the number $x$?"),
    "Unicode": (CUBE, "If x² = 49 and x > 0, what is the cube of the number x?"),
    "delimiters": (CUBE, r"If \( x^2=49 \) and \(x\gt 0\), what is the cube of the number \[x\]?"),
    "left and right": (r"Compute $(3+4)(5-\pi)$.", r"Compute \(\left(3 + 4\right)\left(5 − π\right)\)"),  # noqa: RUF001
    "times": (r"Compute $17 \cdot 24$.", "Compute 17 × 24"),  # noqa: RUF001
    "thousands": ("Tom has 12,500 nails and loses 1,000.", r"Tom has $12{,}500$ nails and loses $1\,000$."),
    "decimals": ("What do 2.50 m at $.75 a metre cost Ada?", "What do 2.5 m at $0.75 a meter cost Ada?"),
    "words for numbers": ("Ann picks twelve pears and 3 plums a day.", "Ann picks 12 pears and three plums a day."),
    "percent": (r"What is $15\%$ of 80?", "What is 15 percent of 80?"),
    "degrees": (r"Compute $\sin 60^\circ$.", r"Compute $\sin 60^{\circ}$."),
    "case, spaces and the end": (TRAIN, TRAIN.upper().replace(" ", "  ").rstrip("?")),
    "a hyphen": ("How many 5-digit well-ordered sums are there?", "How many 5 digit well ordered sums are there?"),
    "another verb": (r"Compute $\tan 30^\circ$.", r"What is the value of $\tan 30^\circ$?"),
    "a label": (TRAIN, f"**Problem 3.** {TRAIN}"),
    "a label with the year": (TRAIN, f"[Contest 2019, Problem 8] {TRAIN}"),
    "an instruction behind": (
        r"Simplify $\frac{8}{22}$.",
        r"Simplify $\frac{8}{22}$. Please reason step by step, and put your final answer within \boxed{}.",
    ),
    "an instruction with a number": (URN, f"{URN} Round your answer to 2 decimal places."),
    "an instruction before": (TRAIN, f"Solve the following problem. {TRAIN}"),
    "synonyms": (URN, URN.replace("holds", "contains").replace("draws", "takes")),
    "sentences in another order": (
        "Nora buys 14 kites. Each kite costs 9 dollars. Her brother buys 3 of them. What do they cost him?",
        "Each kite costs 9 dollars. Nora buys 14 kites. Her brother buys 3 of them. What do they cost him?",
    ),
    "without the stock phrase": (URN, URN[: URN.index(" can be")].replace("The prob", "What is the prob") + "?"),
    "as sentences of a longer text": (
        "What is 2+2?",
        "Tom is asked by his teacher: What is 2+2? He says five, and she smiles.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("known", "row"), SPELLINGS.values(), ids=SPELLINGS)
def test_spelled_otherwise_it_is_the_same_question(known: str, row: str) -> None:
    assert is_hit(row, known)
    assert is_hit(row, "Something else is asked here.", known, "And another thing.")


OTHERS = {
    "another number": (r"Simplify $\frac{8}{22}$.", r"Simplify $\frac{8}{24}$."),
    "a number twice": (r"Simplify $\frac{8}{22}$.", r"Simplify $\frac{8}{8}$."),
    "numbers in another order": ("Compute $12 - 35$.", "Compute $35 - 12$."),
    "a sign": ("Find the roots of $x^2 - 5x + 6 = 0$.", "Find the roots of $x^2 + 5x + 6 = 0$."),
    "a part of a longer formula": (r"Simplify $\frac{8}{22}$.", r"Simplify $\frac{8}{22} + \frac{3}{4}$."),
    "another function": (r"Compute $\sin 60^\circ$.", r"Compute $\cos 60^\circ$."),
    "another operation": (r"Compute $84 \cdot 12$.", r"Compute $\frac{84}{12}$."),
    "least for greatest": (
        "What is the smallest 4-digit number that is divisible by each of 6, 15 and 28?",
        "What is the largest 4-digit number that is divisible by each of 6, 15 and 28?",
    ),
    "another day": (
        "What day of the week was October 28, 2022? Give its name.",
        "What day of the week was September 28, 2022? Give its name.",
    ),
    "a template's other numbers": (URN, URN.replace("5", "6").replace("7", "11")),
    "one other number of a template": (URN, URN.replace("3 of them", "4 of them")),
    "half for twice": (
        "Mia has 14 shells and Ben has half as many shells as Mia. How many shells do they have?",
        "Mia has 14 shells and Ben has twice as many shells as Mia. How many shells do they have?",
    ),
    "a stock phrase": (
        f"The number {STOCK}",
        "A bag holds 3 red and 9 blue balls; the chance of red is " + STOCK.removeprefix("can be written as "),
    ),
    "stock phrases in both": (
        URN,
        f"Circles of radius 2 and 9 touch a line. Their distance {STOCK}",
    ),
    "a short question of stock words": ("Find $x$.", "Two numbers have the sum 12 and the product 35. Find $x$."),
}  # fmt: skip


@pytest.mark.parametrize(("known", "row"), OTHERS.values(), ids=OTHERS)
def test_what_differs_in_a_number_or_shares_stock_phrases_alone_is_another_question(known: str, row: str) -> None:
    assert not is_hit(row, known)
    assert not is_hit(known, row)
    assert is_hit(known, known)


def test_what_many_rows_of_the_source_say_weighs_nothing() -> None:
    """A phrase that nobody could know beforehand, in every row of a source, and in one row of another."""
    phrase = "The gnomes of the valley count their turnips by lantern light, and the elder writes the tally on a slate."
    draw = random.Random(1)
    words = ["".join(draw.choices("bdfglmnrst", k=7)) for _ in range(2000)]
    tails = [" ".join(draw.sample(words, 9)) for _ in range(1000)]
    known, row = f"{phrase} Then {tails[0]}.", f"{phrase} Then {tails[1]}."
    common = rows_of(row, *(f"{phrase} Then {tail}." for tail in tails[2:]))
    assert 0 not in overlaps(common, references(known), 0.5)["index"]
    rare = rows_of(row, *(f"Then {tail}." for tail in tails[2:]))
    assert overlaps(rare, references(known), 0.5)["index"].to_list() == [0]


def test_the_most_alike_reference_is_named_and_of_equals_the_first() -> None:
    near = TRAIN.replace("arrives", "comes")
    known = pl.concat([references("nothing", near, TRAIN, name="a"), references(TRAIN, name="b")])
    found = overlaps(rows_of("Something else", TRAIN), known.reverse(), OVERLAP)
    assert found.rows() == [(1, "a", 3, TRAIN, 1.0)]
    assert found.schema == OVERLAPS


def test_what_is_dropped_says_what_it_asks_again() -> None:
    rows = rows_of("Something else", TRAIN, "A third one")
    kept, dropped = decontaminate(rows, references("nothing", TRAIN), Decontamination())
    assert kept.equals(rows.filter(pl.col("line") != 2))
    assert dropped.columns == list(DROPPED)
    assert dropped.select("line", "filter", "reason").rows() == [
        (2, "benchmark_overlap", f'100 % of MATH-500 row 2: "{TRAIN[:60]}..."')
    ]


def test_our_own_evaluation_rows_are_references_too() -> None:
    held_out = rows_of("Something else", TRAIN)
    _, dropped = decontaminate(rows_of(TRAIN), references_of(held_out), Decontamination(), name=EVALUATION)
    assert dropped.select("filter", "reason").rows() == [
        ("evaluation_overlap", f'100 % of evaluation row 2: "{TRAIN[:60]}..."')
    ]


def test_switched_off_or_without_references_all_is_kept() -> None:
    rows = rows_of(TRAIN)
    for known, settings in ((references(TRAIN), Decontamination(enabled=False)), (references(), Decontamination())):
        kept, dropped = decontaminate(rows, known, settings)
        assert kept.equals(rows)
        assert dropped.is_empty()


@pytest.mark.parametrize("text", ["", "?", "$$", "the"])
def test_questions_without_a_token_are_like_nothing(text: str) -> None:
    assert not is_hit(text, text, TRAIN)
    assert not is_hit(TRAIN, text)
    assert overlaps(rows_of(), references(TRAIN), OVERLAP).is_empty()


def many(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    nouns = [f"{a}{b}{c}" for a in ("kar", "mol", "ven", "tis") for b in "aeiou" for c in ("d", "nt", "sk", "rl", "ph")]
    verbs = ("turns", "holds", "splits", "weighs", "covers")
    return [
        f"The {draw.choice(nouns)} {draw.choice(verbs)} {draw.randrange(2, 99)} {draw.choice(nouns)}s in "
        f"{draw.randrange(2, 99)} hours, each {draw.choice(nouns)} {draw.choice(verbs)} a {draw.choice(nouns)}. How?"
        for _ in range(count)
    ]


def test_neither_order_nor_parts_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, others = many(200, 1), many(20, 2)
    known = others + [text.replace("hours", "days") for text in questions[:20]]
    expected = overlaps(rows_of(*questions), references(*known), OVERLAP)
    assert expected["index"].to_list() == list(range(20))
    shuffled = references(*known).sample(fraction=1, shuffle=True, seed=2)
    assert overlaps(rows_of(*questions), shuffled, OVERLAP).equals(expected)
    backwards = overlaps(rows_of(*questions[::-1]), references(*known), OVERLAP)
    assert sorted((199 - index, *rest) for index, *rest in backwards.iter_rows()) == expected.rows()
    monkeypatch.setattr("ernie_pipeline.data.normalize.words.CHUNK_ROWS", 70)
    monkeypatch.setattr(pairs, "PRODUCTS_AT_ONCE", 20)
    monkeypatch.setattr(pairs, "PAIRS_AT_ONCE", 5)
    assert overlaps(rows_of(*questions), references(*known), OVERLAP).equals(expected)


def test_some_rows_of_a_source_are_judged_as_all_of_them_are() -> None:
    """The features are counted in the source, of which `rows` may be a part, in any order."""
    questions = many(300, 3)
    rows, known = rows_of(*questions), references(*(text.replace("hours", "days") for text in questions[::10]))
    whole = overlaps(rows, known, OVERLAP)
    part = rows.sample(fraction=0.4, shuffle=True, seed=4)
    found = overlaps(part, known, OVERLAP, Source.of(rows))
    scores = dict(zip(rows["line"].gather(whole["index"]), whole["score"], strict=True))
    assert found.height > 5
    assert dict(zip(part["line"].gather(found["index"]), found["score"], strict=True)) == {
        line: score for line, score in scores.items() if line in part["line"]
    }


def test_in_a_source_of_one_template_only_the_same_numbers_are_the_same_question() -> None:
    """Of 8 million pairs, hardly any is looked at."""
    text = "Ida buys {} apples at {} cents and pays with a note. What does she get back?"
    questions = [text.format(i, j) for i in range(100) for j in range(40)]
    known = [text.format(j, i + 7).replace("What", "How much") for i in range(100) for j in range(20)]
    start = time.process_time()
    found = overlaps(rows_of(*questions), references(*known), OVERLAP)
    assert time.process_time() - start < 10
    equal = set(questions) & {text.replace("How much", "What") for text in known}
    assert {questions[index] for index in found["index"]} == equal
    assert 500 < len(equal) < 1000


def test_features_are_found_in_a_table_wherever_their_bucket_is() -> None:
    draw = random.Random(3)
    hashes = weights.distinct(np.array([draw.getrandbits(64) for _ in range(500)] + [0, 1, 2**64 - 1], np.uint64))
    table = FeatureTable(hashes[::2])
    positions, numbers = table.positions(hashes)
    assert sorted(positions.tolist()) == list(range(0, len(hashes), 2))
    assert (table.hashes[numbers] == hashes[positions]).all()
