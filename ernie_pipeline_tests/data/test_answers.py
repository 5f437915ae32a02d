import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_pipeline.data.normalize.answers import balanced, bare_answer, is_balanced, with_answer
from ernie_pipeline.data.normalize.answers import bare as as_bare
from ernie_pipeline_tests.data.samples import PUBLISHED_SAMPLE, frame


def by_expression(text: str) -> str:
    found: str = pl.select(as_bare(pl.lit(text))).item()
    return found


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("32", "32"),
        (" 32\n", "32"),
        (r"\(\frac{333}{1997}\)", r"\frac{333}{1997}"),
        (r"\[ x \]", "x"),
        ("$x$", "x"),
        ("$$ x $$", "x"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\( \boxed{ $5$ } \)", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\(\boxed{5}\)", "5"),
        (r"\( $x$ \)", "x"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"$\$5$", r"\$5"),
        (r"\(\begin{pmatrix} 1 \\ 2 \end{pmatrix}\)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\(x = 1 \text{ if $n$ is odd}\)", r"x = 1 \text{ if $n$ is odd}"),
        ("\\[\nx\n\\]", "x"),
        (r"\(\)", ""),
    ],
)
def test_what_encloses_the_whole_answer_goes(given: str, bare: str) -> None:
    assert bare_answer(given) == bare
    assert by_expression(given) == bare


@pytest.mark.parametrize(
    "answer",
    [
        "$1$ and $2$",
        "$1$$2$",
        r"\(1\) and \(2\)",
        r"\boxed{1}, \boxed{2}",
        r"\boxed{1} \text{ or } \fbox{2}",
        r"\frac{1}{2}",
        "(1, 2)",
        "[0, 1)",
        r"\{1, 2\}",
        r"\sqrt{2}",
        r"\$5",
        "$5",
        "$",
        "$$",
        r"\(x",
        r"x\)",
        r"\(x\]",
        r"\(a \\)",
        r"\boxed",
        r"\boxed{1",
        r"\boxed 5",
        r"\boxedanswer{5}",
        "",
    ],
)
def test_what_encloses_less_stays(answer: str) -> None:
    assert bare_answer(answer) == answer
    assert by_expression(answer) == answer


def test_a_missing_answer_stays_missing() -> None:
    assert with_answer(frame([("q", None), ("q", "$1$")]))["answer"].to_list() == [None, "1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\frac{1}{2}", True),
        (r"\left\{ x", True),
        ("{", False),
        ("}{", False),
        (r"\{}", False),
        ("", True),
        # a backslash after other text escapes as well, unless it is itself escaped
        (r"{x\}", False),
        (r"{(\\\}", False),
        (r"{(\\}", True),
        (r"{x}\{", True),
        ("{}\\", True),
    ],
)
def test_braces_are_paired_and_escaped_ones_do_not_count(text: str, expected: bool) -> None:
    assert balanced(text) is expected
    assert pl.select(is_balanced(pl.lit(text))).item() is expected


@pytest.mark.skipif(not PUBLISHED_SAMPLE.is_file(), reason="the published sample rows lie outside the repository")
def test_the_published_sample_rows() -> None:
    answers = [json.loads(line)["expected_answer"] for line in PUBLISHED_SAMPLE.read_text().splitlines()]
    assert [bare_answer(answer) for answer in answers] == [
        "32",
        r"\frac{(3-\sqrt{3})(2-\sqrt{3})^{2016}+(3+\sqrt{3})(2+\sqrt{3})^{2016}}{6}",
        r"\frac{333}{1997}",
        r"\sqrt{2}",
        "-3",
    ]


PARTS = st.sampled_from(
    [
        *r"\()[]${}1x ,",
        r"\(",
        r"\)",
        r"\[",
        r"\]",
        "$$",
        r"\boxed{",
        r"\fbox{",
        r"\{",
        r"\\",
        "\n",
        "\x1c",
        "\u00a0",
        r"\frac",
    ]
)
answers = st.lists(st.one_of(PARTS, st.characters(exclude_categories=["Cs"])), max_size=10).map("".join)
wrapped = st.one_of(answers, answers.map(lambda a: rf"\({a}\)"), answers.map(lambda a: rf" \( \({a}\) \) "))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.none(), wrapped), max_size=4))
def test_the_expressions_answer_as_the_plain_functions(given_answers: list[str | None]) -> None:
    table = pl.DataFrame({"text": given_answers}, schema={"text": pl.String})
    found = table.select(bare=as_bare(pl.col("text")), balanced=is_balanced(pl.col("text")))
    assert found["bare"].to_list() == [None if text is None else bare_answer(text) for text in given_answers]
    assert [b for b, t in zip(found["balanced"], given_answers, strict=True) if t is not None] == [
        balanced(text) for text in given_answers if text is not None
    ]


@pytest.mark.parametrize("depth", [3, 4, 5, 40])
def test_deeply_nested_braces_are_paired_too(depth: int) -> None:
    texts = pl.DataFrame({"text": ["{" * depth + "}" * depth, "{" * depth + "}" * (depth - 1), "}{" * depth]})
    assert texts.select(is_balanced(pl.col("text"))).to_series().to_list() == [True, False, False]
