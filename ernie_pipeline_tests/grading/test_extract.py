"""Where the answer is in a model's output."""

import pytest

from ernie_pipeline.grading.extract import boxes, last_boxed, spoken, without_box
from ernie_pipeline.grading.judge import judge


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{1} and \boxed{2}", ["1", "2"]),
        (r"\boxed{x=\boxed{3}}", ["3"]),
        (r"\fbox{3}", ["3"]),
        (r"\boxed{1", []),
        ("nothing", []),
    ],
)
def test_boxes(text: str, found: list[str]) -> None:
    assert boxes(text) == found
    assert last_boxed(text) == (found[-1] if found else None)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("<think>a</think>b", "b"),
        ("<think>a</think> ", "<think>a</think> "),
        ("a", "a"),
        ("<think>a</think>b</think>c", "c"),
    ],
)
def test_thoughts_do_not_count_where_something_follows(output: str, said: str) -> None:
    assert spoken(output) == said


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is 5.", "5"),
        ("The answer is **5**.", "**5**"),
        ("The final answer is $5$. I hope it is correct.", "$5$"),
        ("Answer: 3/4", "3/4"),
        ("We get $x = 3$ and so $y = 4$.", "$y = 4$"),
        ("First $3$, then\n$4$ or $5$", "$4$ or $5$"),
        ("It costs $12.50.", "$12.50"),
        ("There are 1,000 of them.", "1,000"),
        ("x = -2", "x = -2"),
        ("It is 3 or 4.", "3 or 4"),
        ("Monday", "Monday"),
        ("I cannot tell what it is.", None),
        ("", None),
    ],
)
def test_without_a_box(output: str, answer: str | None) -> None:
    assert without_box(output) == answer


@pytest.mark.parametrize(
    ("output", "correct"),
    [
        (r"\boxed{4} is \boxed{4.0}", True),
        (r"\boxed{4} or \boxed{5}", False),
        (r"\boxed{5} or \boxed{4}", False),
        (r"<think>\boxed{5}</think> \boxed{4}", True),
        (r"<think>\boxed{4}</think> \boxed{5}", False),
        ("It is 4 or 5.", False),
        ("**4** or **5**", False),
        ("The answer is 4.", True),
        ("The answer is not 4.", False),
        ("The answer is 5, not 4.", False),
    ],
)
def test_hedges_are_wrong(output: str, correct: bool) -> None:
    assert judge(output, "4").correct is correct
