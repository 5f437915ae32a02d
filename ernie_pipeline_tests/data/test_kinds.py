import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_pipeline.data.normalize.answer_kinds import KINDS, answer_kind
from ernie_pipeline.data.normalize.answers import bare

EXAMPLES = {
    "integer": [
        "1,000",
        "-3",
        "$1{,}000$",
        r"50\%",
        r"5 \text{ cm}",
        "1 000",
        "12 apples",
        r"90^\circ",
        r"\$5",
        "7.",
        "+4",
        "1{,}000{,}000",
        "72",
        r"-1\,000",
        "5 cm",
        r"5\mathrm{~cm}",
        r"12 \mathrm{~km}/\mathrm{h}",
        r"30^{\circ}",
        r"-5^{\circ} \mathrm{C}",
        "45°",
        r"45 \text{ cents}",
        r"16 \mathrm{~cm}^{2}",
        r"3 \text{ m}",
        r"12 \text{ square units}",
        "60 miles per hour",
        "12 km/h",
        "£5",
        r"\text{Rs. }500",
    ],
    "decimal": [
        r"9.8\ \mathrm{m/s^2}",
        r"3.5 \mathrm{~m}/\mathrm{s}^{2}",
        "€3.50",
        "3.14",
        ".5",
        "1,234.5",
        "-0.25",
        "2.5 hours",
        r"\$3.50",
    ],
    "fraction": [
        "3/4",
        r"\frac{333}{1997}",
        r"-\frac{1}{2}",
        r"\dfrac{1}{2}",
        r"\frac12",
        r"1\frac{1}{2}",
        r"\frac{-1}{2}",
        "1/2 cup",
        r"\frac{1}{2} \mathrm{~cm}",
    ],
    "interval": [
        "(0,1]",
        r"[1, \infty)",
        r"x \in (0,1)",
        r"(-\infty, 2) \cup (3, \infty)",
        "[0,1]",
        r"\left[0, \frac{1}{2}\right)",
        "]0,1[",
        r"x\in[1,2]",
        r"(-\infty,\infty)",
    ],
    "set": [
        r"\{1,2\}",
        "(1,2)",
        "1, 2",
        "6 or 9",
        "1,2",
        r"\emptyset",
        "(1, 2), (3, 4)",
        r"\left(\frac{1}{2}, 3\right)",
        r"1 \text{ and } 2",
        r"5 \text{ or } 6",
        "1, 000",
        "(1,2,3)",
        r"\{(1,2),(3,4)\}",
        r"\{x : x > 3\}",
        "[1,2,3]",
    ],
    "equation": [
        "x=3",
        "y = 2x+1",
        r"a \le b",
        "x > 3",
        "f(x) = 2x",
        "x = 1, y = 2",
        r"x \neq 2",
        r"A = \begin{pmatrix} 1 & 2 \end{pmatrix}",
        r"\left\{\begin{array}{l} x = 1 \\ y = 2 \end{array}\right.",
    ],
    "expression": [
        r"x \rightarrow y",
        r"\sqrt{2}",
        r"2\pi",
        "10^{5}",
        "f(a,b)",
        r"\sin x + \cos x",
        "ab",
        "x",
        r"\frac{(3-\sqrt{3})(2-\sqrt{3})^{2016}}{6}",
        r"\frac{\pi}{2}",
        "2^{10}-1",
        "n(n+1)/2",
        "(x+1)(x+2)",
        "log(2)",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        r"\left[\begin{array}{ccc} 1 & 2 & 3 \\ 4 & 5 & 6 \end{array}\right]",
        r"\left(\begin{array}{rrr} 1, & 2, & 3 \end{array}\right)",
        r"5 \sqrt{2} \text{ cm}",
        r"3\mathrm{i}",
        "3 m",
        "(n+1)",
    ],
    "text": [
        r"\text{Yes}",
        "no solution",
        "Monday",
        "yes",
        "No",
        "Alice and Bob",
        r"2 \text{ hours } 30 \text{ minutes}",
        r"12 \text{ if } n \text{ is even}",
        "even",
        r"\text{no real solutions}",
        "All integers n such that n > 3",
    ],
}


@pytest.mark.parametrize(
    ("kind", "answer"), [(kind, answer) for kind, answers in EXAMPLES.items() for answer in answers]
)
def test_the_kind_of_an_answer(kind: str, answer: str) -> None:
    assert pl.DataFrame({"answer": [answer]}).select(answer_kind(pl.col("answer"))).item() == kind


def test_there_is_an_example_of_each_kind() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_delimiters_and_spacing_make_no_other_kind(kind: str) -> None:
    answers = pl.DataFrame({"answer": EXAMPLES[kind]})
    for before, after in ((r"\(", r"\)"), ("$", "$"), (" ", " "), (r"\boxed{", "}"), ("", ".")):
        wrapped = answers.select(answer=bare(pl.concat_str(pl.lit(before), "answer", pl.lit(after))))
        assert set(wrapped.select(answer_kind(pl.col("answer"))).to_series()) == {kind}, before


def test_a_missing_answer_has_no_kind() -> None:
    assert (
        pl.DataFrame({"answer": [None]}, schema={"answer": pl.String}).select(answer_kind(pl.col("answer"))).item()
        is None
    )


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_every_text_has_one_of_the_kinds(answer: str) -> None:
    assert pl.DataFrame({"answer": [answer]}).select(answer_kind(pl.col("answer"))).item() in KINDS


@given(st.integers())
def test_integers_and_their_fractions_are_told(number: int) -> None:
    answers = [str(number), f"{number:,}", f"{number}.5", f"{number}/7", rf"\frac{{{number}}}{{7}}"]
    found = pl.DataFrame({"answer": answers}).select(answer_kind(pl.col("answer"))).to_series().to_list()
    assert found == ["integer", "integer", "decimal", "fraction", "fraction"]
