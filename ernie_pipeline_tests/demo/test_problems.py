import ast
import math
import re
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest

from ernie_pipeline.demo.problems import FAMILIES, INSTRUCTION, demo_rows, demo_version, expressions

MAX_DUPLICATES = 0.05  # 102 of the demo recipe's 2,400 rows; the split drops them
COUNT = 2400


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The demo recipe's rows."""
    return demo_rows(COUNT, seed=0)


def value(expression: str, x: int = 0) -> int:
    """A sum or product of integers and the unknown, worked out over its syntax tree."""

    def of(node: ast.AST) -> int:
        match node:
            case ast.BinOp(left, ast.Add(), right):
                return of(left) + of(right)
            case ast.BinOp(left, ast.Sub(), right):
                return of(left) - of(right)
            case ast.BinOp(left, ast.Mult(), right):
                return of(left) * of(right)
            case ast.UnaryOp(ast.USub(), operand):
                return -of(operand)
            case ast.Constant(number) if isinstance(number, int):
                return number
            case ast.Name():
                return x
        raise AssertionError(f"{expression!r} is no problem of this demo")

    return of(ast.parse(expression.strip(), mode="eval").body)


def family_and_truth(question: str) -> tuple[str, str]:
    """Which family a question is of, and its answer, from the question's text alone."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if "Greatest Common Divisor" in question:
        return "gcd", str(max(d for d in range(1, 121) if all(n % d == 0 for n in numbers)))
    if "Least Common Multiple" in question:
        return "lcm", str(next(m for m in range(1, 3601) if all(m % n == 0 for n in numbers)))
    if "fraction" in question:
        lowest = Fraction(*numbers)
        style = "$\\frac{{{}}}{{{}}}$" if "frac{" in question else "{}/{}"
        return "fraction_simplification", style.format(lowest.numerator, lowest.denominator)
    if equation := re.search(r": (.+[a-z].*) = (-?\d+)$", question):
        left, right = equation[1], int(equation[2])
        at_zero, at_one = value(left, 0), value(left, 1)
        return "simple_equations", str(Fraction(right - at_zero, at_one - at_zero))
    expression = re.search(r": ([\d +*-]+)", question)
    assert expression, question
    return ("products" if "*" in expression[1] else "chain_sum"), str(value(expression[1]))


def test_every_answer_is_the_problems_own(rows: list[dict[str, Any]]) -> None:
    families: Counter[str] = Counter()
    for row in rows:
        family, truth = family_and_truth(row["question"])
        assert row["expected_answer"] == truth, row["question"]
        families[family] += 1
    assert families == dict.fromkeys(FAMILIES, COUNT // len(FAMILIES))


def test_rows_have_nemotrons_schema(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert list(row) == ["responses_create_params", "question", "expected_answer"]
        content = INSTRUCTION + row["question"]
        assert row["responses_create_params"] == {"input": [{"role": "user", "content": content}]}
        assert row["question"].strip() == row["question"] != ""


def test_the_families_are_mixed(rows: list[dict[str, Any]]) -> None:
    assert len({family_and_truth(row["question"])[0] for row in rows[:60]}) == len(FAMILIES)


def test_few_questions_are_there_twice(rows: list[dict[str, Any]]) -> None:
    assert 1 - len({row["question"] for row in rows}) / len(rows) <= MAX_DUPLICATES


def test_the_same_seed_gives_the_same_rows_and_another_one_others(rows: list[dict[str, Any]]) -> None:
    assert demo_rows(COUNT, seed=0) == rows
    first, other = ({row["question"] for row in demo_rows(600, seed)} for seed in (0, 1))
    assert len(first & other) < 0.1 * len(first)


@pytest.mark.parametrize("count", [1, 5, 7, 100])
def test_as_many_rows_as_asked_for(count: int) -> None:
    assert len(demo_rows(count, seed=3)) == count


def test_the_version_follows_count_seed_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {demo_version(10, 0), demo_version(11, 0), demo_version(10, 1)}
    assert demo_version(10, 0) in versions
    monkeypatch.setitem(FAMILIES, "gcd", {"min_value": 2, "max_value": 121})
    assert len({*versions, demo_version(10, 0)}) == 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Compute 12 + 35 - 8 = 39", {"12+35-8", "12+35", "35-8"}),
        ("What is 35+12?", {"12+35"}),
        ("90 * 58", {"58*90"}),
        ("8 - 3", {"8-3"}),
        ("Find the GCD of 56, 8.", {"8,56"}),
        ("gcd(8, 56) = 8", {"8,56"}),
        ("Simplify $\\frac{14}{154}$", {"14/154"}),
        ("Simplify 14/154.", {"14/154"}),
        ("\\dfrac{14}{154}", {"14/154"}),
        ("Solve for q: 3*q + 5 = 20", {"3*x+5=20"}),
        ("An equation: 20 - 14*s = -232", {"20-14*x=-232"}),
        ("Solve for z: 24*z = 144 z = 6", {"24*x=144", "x=6"}),  # an answer right after its equation
        ("The Greatest Common Divisor: 57, 19 19.", {"19,57"}),
        ("14*s = 14; s = 14 / 14", {"14*x=14", "x=14/14", "14/14"}),
        ("x = 3, 2*x + 3 = 9", {"x=3", "2*x+3=9"}),
        ("There are 12 apples and 35 pears.", set()),
        ("", set()),
    ],
)
def test_the_problems_that_stand_in_a_text(text: str, found: set[str]) -> None:
    assert expressions(text) == found


def test_every_question_holds_a_problem_that_can_be_kept_out(rows: list[dict[str, Any]]) -> None:
    assert all(expressions(row["question"]) for row in rows)
    assert math.comb(4, 2) == len(expressions("1 + 2 - 3 + 4"))  # every contiguous part of two or more
