"""Statistics: against published examples, and against what they promise."""

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest

from ernie_pipeline.evaluation.metrics import accuracy_interval, by_kind, compare_paired, summarise
from ernie_pipeline.grading.grade import Grade, is_strict


def _rows(both: int, lost: int, won: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published(correct: int, total: int, low: float, high: float) -> None:
    """Newcombe, Stat. Med. 17 (1998) 857-872, table I, method 3."""
    assert accuracy_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (2, 1), (-1, 3)])
def test_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        accuracy_interval(correct, total)


def test_paired_interval_published() -> None:
    """Altman et al., Statistics with Confidence (2000), p. 52: 14 both, 5 the one only, 0 the other, 22 neither."""
    found = compare_paired(*_rows(14, 0, 5, 22))
    assert (found.both_correct, found.only_before, found.only_after, found.neither) == (14, 0, 5, 22)
    assert (found.gain, found.gain_low, found.gain_high) == pytest.approx((0.122, 0.011, 0.226), abs=5e-4)


@pytest.mark.parametrize(("lost", "won"), [(0, 5), (3, 9), (4, 4), (1, 0), (20, 7)])
def test_p_value_is_the_enumerated_one(lost: int, won: int) -> None:
    n = lost + won
    enumerated = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, won)) / 2**n
    assert compare_paired(*_rows(10, lost, won, 10)).p_value == pytest.approx(enumerated)


def test_interval_of_every_small_table_is_sound() -> None:
    for counts in product(range(4), repeat=4):
        if not sum(counts):
            continue
        before, after = _rows(*counts)
        found, mirrored = compare_paired(before, after), compare_paired(after, before)
        assert -1 <= found.gain_low <= found.gain <= found.gain_high <= 1
        assert found.gain_low < found.gain_high
        assert (mirrored.gain_low, mirrored.gain_high) == pytest.approx((-found.gain_high, -found.gain_low))
        assert mirrored.p_value == found.p_value


def test_no_disagreement_proves_nothing() -> None:
    found = compare_paired(*_rows(30, 0, 0, 0))
    assert (found.gain, found.p_value) == (0.0, 1.0)
    assert found.gain_low < 0 < found.gain_high


@pytest.mark.parametrize("shares", [(0.4, 0.1, 0.2, 0.3), (0.05, 0.02, 0.01, 0.92), (0.9, 0.03, 0.05, 0.02)])
def test_paired_interval_covers(shares: tuple[float, float, float, float]) -> None:
    """Of simulated studies of 100 rows, 95 % (or more, where rights are rare) have intervals with the true gain."""
    tables = np.random.default_rng(0).multinomial(100, shares, size=500)
    held = 0
    for table in tables:
        found = compare_paired(*_rows(*table.tolist()))
        held += found.gain_low <= shares[2] - shares[1] <= found.gain_high
    assert held / len(tables) >= 0.93


@pytest.mark.parametrize(("before", "after"), [([True], [True, False]), ([], [])])
def test_bad_pairs(before: list[bool], after: list[bool]) -> None:
    with pytest.raises(ValueError, match="rows"):
        compare_paired(before, after)


def test_summary() -> None:
    grades = [
        Grade("correct", True, "1", 0.1),
        Grade("correct", False, "2", 0.1),
        Grade("wrong", True, "3", 0.1),
        Grade("timeout", True, "4", 5.0),
    ]
    low, high = accuracy_interval(2, 4)
    strict_low, strict_high = accuracy_interval(1, 4)
    assert summarise(grades, [True, True, False, False]) == {
        "rows": 4,
        "accuracy": 0.5,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_strict": 0.25,
        "accuracy_strict_low": strict_low,
        "accuracy_strict_high": strict_high,
        "unboxed_share": 0.25,
        "unended_share": 0.5,
        "timeout_share": 0.25,
    }


@pytest.mark.parametrize(
    ("outcome", "boxed", "ended", "strict"),
    [
        ("correct", True, True, True),
        ("correct", False, True, False),
        ("correct", True, False, False),
        ("wrong", True, True, False),
        ("timeout", True, True, False),
    ],
)
def test_a_strict_answer_is_right_and_boxed_and_ended(outcome: Any, boxed: bool, ended: bool, strict: bool) -> None:
    assert is_strict(Grade(outcome, boxed, "1", 0.1), ended) is strict


def test_each_kind_of_answer_has_its_own_accuracy() -> None:
    grades = [Grade(outcome, True, "1", 0.1) for outcome in ("correct", "wrong", "correct", "timeout")]
    assert by_kind(["integer", "set", "integer", "set"], grades) == {
        "integer": {"rows": 2, "accuracy": 1.0},
        "set": {"rows": 2, "accuracy": 0.0},
    }


def test_summary_of_nothing() -> None:
    with pytest.raises(ValueError, match=r".+"):
        summarise([], [])
