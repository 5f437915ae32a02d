import random

import polars as pl
import pytest

from ernie_pipeline.data.decontaminate import overlap as module
from ernie_pipeline.data.decontaminate.overlap import EVALUATION, decontaminate, overlaps, references_of
from ernie_pipeline.data.filter.reasons import DROPPED
from ernie_pipeline.data.normalize.words import split_words
from ernie_pipeline.recipe.sections import Decontamination

TRAIN = "A train leaves the station at 9 am and arrives at noon. How long does it travel?"


def references(*questions: str, name: str = "MATH-500") -> pl.DataFrame:
    rows = [(name, row, question) for row, question in enumerate(questions, start=1)]
    return pl.DataFrame(rows, schema=["set", "row", "question"], orient="row")


def hit(question: str, *known: str, words: int = 8) -> str | None:
    """The words that the question shares with one of the known ones."""
    found = overlaps(pl.Series([question]), references(*known), words)
    return found["words"].first() if found.height else None


def test_eight_words_in_a_row_are_a_hit_and_seven_are_none() -> None:
    shared = "leaves the station at 9 am and"
    assert hit(f"The bus {shared} arrives early", TRAIN) == f"{shared} arrives"
    assert hit(f"The bus {shared} returns early", TRAIN) is None
    assert hit(f"The bus {shared} returns early", TRAIN, words=7) == shared


def test_typesetting_hides_nothing() -> None:
    one = r"Find all real \(x\) such that \(x^2 + 3x = 10\), and their sum and product"
    other = "FIND ALL REAL $x$ such that $x^2+3x=10$ and then say why"
    assert hit(one, other) == "find all real x such that x^2+3x=10 and"
    assert hit(one.replace("+", "-"), other) is None


@pytest.mark.parametrize(
    ("short", "counts"),
    [
        ("What is 2+2?", True),
        ("Compute the sum of angles.", True),
        ("Find x.", False),
        ("Compute 2+2", False),
        ("Find the sum of", False),
    ],
)
def test_a_short_question_is_found_as_a_whole_if_it_is_not_too_short(short: str, counts: bool) -> None:
    words = short.lower().strip(".?")
    long = f"Tom is asked by his teacher: {short} He says five, and she smiles."
    assert hit(long, short) == (words if counts else None)
    assert hit(short, long) == (words if counts else None)
    assert hit(short.upper(), short) == words
    assert hit(f"{short} again", f"once {short}") is None


def test_a_short_question_does_not_run_over_the_end_of_another() -> None:
    questions = pl.Series(["what is", "2+2 then", "what is 2+2 then"])
    assert overlaps(questions, references("What is 2+2"), 8)["index"].to_list() == [2]
    assert overlaps(pl.Series(["What is 2+2"]), references("what is", "2+2 then"), 8).is_empty()


def test_the_first_reference_is_named() -> None:
    known = pl.concat([references("nothing", TRAIN, TRAIN, name="b"), references("x", "y", "z", TRAIN, name="a")])
    found = overlaps(pl.Series(["Something else", TRAIN]), known.reverse(), 8)
    assert found.rows() == [(1, "a", 4, "a train leaves the station at 9 am")]


def rows_of(*questions: str) -> pl.DataFrame:
    return pl.DataFrame({"line": range(1, len(questions) + 1), "question": questions, "expected_answer": "3"})


def test_what_is_dropped_says_where_it_stands() -> None:
    rows = rows_of("Something else", TRAIN, "A third one")
    kept, dropped = decontaminate(rows, references("nothing", TRAIN), Decontamination())
    assert kept.equals(rows.filter(pl.col("line") != 2))
    assert dropped.columns == list(DROPPED)
    assert dropped.select("line", "filter", "reason").rows() == [
        (2, "benchmark_overlap", 'shares "a train leaves the station at 9 am" with MATH-500 row 2')
    ]


def test_our_own_evaluation_rows_are_references_too() -> None:
    held_out = rows_of("Something else", TRAIN)
    _, dropped = decontaminate(rows_of(TRAIN), references_of(held_out), Decontamination(), name=EVALUATION)
    reason = 'shares "a train leaves the station at 9 am" with evaluation row 2'
    assert dropped.select("filter", "reason").rows() == [("evaluation_overlap", reason)]


def test_switched_off_or_without_references_all_is_kept() -> None:
    rows = rows_of(TRAIN)
    for known, settings in ((references(TRAIN), Decontamination(enabled=False)), (references(), Decontamination())):
        kept, dropped = decontaminate(rows, known.cast({"row": pl.Int64}), settings)
        assert kept.equals(rows)
        assert dropped.is_empty()


def by_hand(questions: list[str], known: list[str], n: int) -> list[tuple[int, int]]:
    """(question, first reference) by comparing every run of words of one with every run of the other."""

    def runs(words: list[str], length: int) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

    def share(one: list[str], other: list[str]) -> bool:
        short = min(len(one), len(other), n)
        has_digit = any(c.isdigit() for c in "".join(min(one, other, key=len)))
        if short < n and one != other and short < (3 if has_digit else 5):
            return False
        return bool(runs(one, short) & runs(other, short)) and short > 0

    found = []
    for index, question in enumerate(questions):
        hits = (row for row, text in enumerate(known, start=1) if share(question.split(), text.split()))
        if (first := next(hits, None)) is not None:
            found.append((index, first))
    return found


def some_questions(seed: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    texts = [" ".join(draw.choice(["a", "b", "c", "1"]) for _ in range(draw.randrange(0, 14))) for _ in range(120)]
    return texts[:80], texts[80:]


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_it_finds_what_comparing_all_runs_finds(n: int) -> None:
    for seed in range(8):
        questions, known = some_questions(seed)
        found = overlaps(pl.Series(questions), references(*known), n)
        assert found.select("index", "row").rows() == by_hand(questions, known, n)


def test_equal_hashes_of_other_words_are_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_pipeline.data.normalize.words.word_hash", lambda word: 7)
    counted = "one two three four five six seven eight"
    assert hit(counted, "eight seven six five four three two one") is None
    assert hit(f"{counted} nine ten", counted) == counted


def test_neither_order_nor_parts_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, known = some_questions(3)
    expected = overlaps(pl.Series(questions), references(*known), 5)
    assert 0 < expected.height < len(questions)
    shuffled = references(*known).sample(fraction=1, shuffle=True, seed=2)
    assert overlaps(pl.Series(questions), shuffled, 5).equals(expected)
    backwards = overlaps(pl.Series(questions[::-1]), references(*known), 5)
    assert sorted((79 - index, *rest) for index, *rest in backwards.iter_rows()) == expected.rows()
    monkeypatch.setattr("ernie_pipeline.data.normalize.words.CHUNK_ROWS", 7)
    assert overlaps(pl.Series(questions), references(*known), 5).equals(expected)


def test_words_that_were_split_before_are_used() -> None:
    questions = pl.Series(["Something else", TRAIN])
    found = overlaps(questions, references(TRAIN), 8, split_words(questions))
    assert found.equals(overlaps(questions, references(TRAIN), 8))
    assert found.schema == module.OVERLAPS
