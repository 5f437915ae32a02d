# ruff: noqa: RUF001 (letters that look like others are meant)
import string

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_pipeline.data.normalize.text import alike, lone_letters, normalised, question_key


def key(text: str) -> str:
    return str(pl.select(normalised(pl.lit(text))).item())


def same(one: str, other: str) -> bool:
    return alike(pl.Series([one, other])).height == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1 + 1?", "What is 1+1?"),
        ("What is 1 + 1?", "  what  is\n1 +\t1 "),
        ("What is １ + 1?", "What is 1 + 1?"),
        ("a ﬁne ½", "a fine 1⁄2"),
        ("Let $x = 3$. Find $x$.", r"Let \(x=3\). Find \[x\]"),
        (r"$x\,y$", r"$x \quad y$"),
        (r"$\dfrac{1}{2}$", r"$\frac{1}{2}$"),
        ("He said “12”, she said “13”.", 'He said "12", she said "13".'),
        ("the dog's ‘bone’", "the dog’s 'bone'"),
        ("Hello, World!", "hello world"),
        ("Find it; then say: when", "Find it then say when"),
        ("A train leaves", "a train leaves"),
        ("f(x, y)", "f(x,y)"),
        (r"\sin(x)", r"\sin (x)"),
        ("THE ANSWER is x", "The answer IS x"),
    ],
)
def test_typesetting_makes_no_other_question(one: str, other: str) -> None:
    assert same(one, other), (key(one), key(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.5", "35"),
        ("x-1", "x+1"),
        ("x - 1", "x 1"),
        ("f(x)", "fx"),
        ("f(x)", "f x"),
        ("1,000", "1000"),
        ("1,000", "1 000"),
        ("1 000", "1000"),
        ("1,000", "1, 000"),
        ("12 3", "1 23"),
        (".5", "5"),
        ("5!", "5"),
        ("n! + 1", "n + 1"),
        ("f'(x)", "f(x)"),
        ("(a, b)", "(a b)"),
        (r"(\pi, \alpha)", r"(\pi \alpha)"),
        ("(0, 1]", "[0, 1)"),
        ("X + x", "x + x"),
        ("x_n + X", "X_n + x"),
        (r"\Delta", r"\delta"),
        ("x^2", "x_2"),
        (r"\$5", "5"),
        ("1, ..., 9", "1, 9"),
        ("a:b", "ab"),
        ("x < 3", "x > 3"),
        (r"a \\ b", "a b"),
        ("x | y", "x y"),
        (r"\sqrt{2}", "2"),
        ("5%", "5"),
    ],
)
def test_what_changes_the_mathematics_makes_another_question(one: str, other: str) -> None:
    assert not same(one, other), (key(one), key(other))


def test_lone_letters_are_told_apart_by_case() -> None:
    assert pl.select(lone_letters(pl.lit(r"A circle \(X_n\) and \Delta ABC in b, with a point P"))).item() == "Xn\\bP"


def test_only_questions_that_are_alike_are_given_with_their_place() -> None:
    questions = pl.Series(["What is x?", "What is y?", "what is $x$", "1 + 2", "2 + 1", "What is X?", "what is y"])
    groups = alike(questions).group_by("same").agg("position")["position"].to_list()
    assert sorted(map(sorted, groups)) == [[0, 2], [1, 6]]
    assert alike(questions[:0]).is_empty()


PARTS = [
    *r"\()[]$xXaA.?!,;: 12'~-+{}",
    "\t",
    "\n",
    "ab",
    "Is",
    "2.5",
    "1,000",
    r"\pi",
    r"\quad",
    r"\Delta",
    r"\left",
    '"',
    "“",
    "é",
]
PARTS += [
    "İ",
    "½",
    "²",
    "ß",
    "...",
    "\u00a0",
    "ſ",
    "ﬁ",
    "K",
    "Σ",
    "ς",
    "е",
    "日",
    r"\$",
    r"\\",
    r"\,",
    r"\(",
    r"\dfrac",
]
texts = st.lists(
    st.one_of(st.sampled_from(PARTS), st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=12
)


@settings(max_examples=300, deadline=None)
@given(texts.map("".join))
@example("\\\tx")
@example("red, green,blue! x,")
def test_normalising_again_changes_nothing(text: str) -> None:
    assert key(key(text)) == key(text)


@settings(max_examples=200, deadline=None)
@given(texts.map("".join), texts.map("".join))
def test_the_quick_comparison_loses_no_pair(one: str, other: str) -> None:
    """`alike` normalises only what differs in no count; equal keys must always get so far."""
    pair = pl.DataFrame({"q": [one, other]}).select(question_key(pl.col("q")))
    assert same(one, other) == (pair.to_series().n_unique() == 1)


words = st.text(string.ascii_letters, min_size=2, max_size=6)
operators = st.sampled_from(["+", "-", "=", "<", "(", ")", "^"])
statements = st.lists(st.one_of(words, operators, st.integers(0, 999).map(str)), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(statements, st.data())
def test_space_around_operators_and_the_case_of_words_say_nothing(parts: list[str], data: st.DataObject) -> None:
    varied = [data.draw(st.sampled_from([part, part.upper(), part.lower(), part.title()])) for part in parts]
    spaced = [f" {part}\t" if data.draw(st.booleans()) and not part.isalnum() else part for part in varied]
    assert same(" ".join(parts), " ".join(spaced))


@settings(max_examples=100, deadline=None)
@given(statements, st.data())
def test_another_operator_is_another_question(parts: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(parts)))
    assert not same(" ".join(parts), " ".join([*parts[:place], "*", *parts[place:]]))
