"""What graded attempts at problems have in common, whoever asked for them, and what several at each one say."""

from collections.abc import Iterable
from dataclasses import asdict
from math import comb
from typing import Any, Protocol, TypeVar

from ernie_pipeline.grading.grade import Grade


class OfProblem(Protocol):
    """An attempt at the problem with this `row_id`."""

    @property
    def row_id(self) -> str: ...


T = TypeVar("T", bound=OfProblem)


def grade_values(grade: Grade) -> dict[str, Any]:
    """A grade's values by name, for a table of attempts: how long grading took is no property of one."""
    return {name: value for name, value in asdict(grade).items() if name != "seconds"}


def by_problem(attempts: Iterable[T]) -> dict[str, list[T]]:
    """The attempts at each problem by its `row_id`, in their order."""
    found: dict[str, list[T]] = {}
    for each in attempts:
        found.setdefault(each.row_id, []).append(each)
    return found


def pass_at(attempts: int, right: int, k: int) -> float:
    """The chance that of `k` attempts, drawn from the `attempts` of which `right` are right, one is: unbiased.

    Source: Chen et al., "Evaluating large language models trained on code" (2021), equation 1.
    """
    return 1.0 - comb(attempts - right, k) / comb(attempts, k)


def powers_up_to(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which is the last."""
    return sorted({2**n for n in range(most.bit_length()) if 2**n < most} | {most})
