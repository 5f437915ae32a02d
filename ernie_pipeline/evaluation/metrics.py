"""How sure an accuracy, and the difference between two of them on the same rows, is."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import binomtest  # type: ignore[import-untyped]

from ernie_pipeline.grading.grade import Grade, is_strict
from ernie_pipeline.grading.intervals import wilson


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same rows: four counts of rows that sum to all of them, and what they say.

    `gain` is the accuracy after minus the accuracy before, in [-1, 1], with its 95 % interval `gain_low` to
    `gain_high`; `p_value` is that of "both models are equally often correct".
    """

    both_correct: int
    only_before: int
    only_after: int
    neither: int
    gain: float
    gain_low: float
    gain_high: float
    p_value: float


def accuracy_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of the share `correct / total`, within [0, 1], see `wilson`.

    Raises `ValueError` unless 0 <= correct <= total, total > 0 and 0 < confidence < 1.
    """
    if not (0 <= correct <= total and total > 0 and 0 < confidence < 1):
        raise ValueError(f"no share: {correct} of {total}, with confidence {confidence}")
    return wilson(correct / total, total, confidence)


def compare_paired(before: Sequence[bool], after: Sequence[bool]) -> PairedComparison:
    """Compare two models row by row; element i of both sequences says whether row i was answered correctly.

    The p-value is the exact, two-sided McNemar test: only the rows on which the models disagree speak, and under the
    null hypothesis each of these is a fair coin (McNemar, Psychometrika 12 (1947) 153-157). It is 1 where they never
    disagree. The interval is `_gain_interval`'s. Raises `ValueError` for unequal lengths or no rows.
    """
    if len(before) != len(after):
        raise ValueError(f"paired rows wanted, got {len(before)} before and {len(after)} after")
    if not before:
        raise ValueError("no rows to compare")
    was, now = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    both, lost = int(np.sum(was & now)), int(np.sum(was & ~now))
    won, neither = int(np.sum(~was & now)), int(np.sum(~was & ~now))
    low, high = _gain_interval(both, won, lost, neither)
    p_value = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return PairedComparison(both, lost, won, neither, (won - lost) / len(was), low, high, p_value)


def summarise(grades: Sequence[Grade], ended: Sequence[bool]) -> dict[str, float | int]:
    """The figures of one model's grades; `ended[i]` as in `is_strict`. Raises `ValueError` for no grades.

    rows                  answers graded
    accuracy              share that is correct, of all rows: a wrong and a timed out answer count the same
    accuracy_low          lower end of its 95 % interval (Wilson)
    accuracy_high         upper end
    accuracy_strict       share that is correct, boxed and ended
    accuracy_strict_low   lower end of its 95 % interval
    accuracy_strict_high  upper end
    unboxed_share         share without a complete boxed answer, correct or not
    unended_share         share that the limit of new tokens cut off
    timeout_share         share whose grading ran out of time
    """
    rows = len(grades)
    correct = sum(grade.outcome == "correct" for grade in grades)
    strict = sum(is_strict(grade, end) for grade, end in zip(grades, ended, strict=True))
    low, high = accuracy_interval(correct, rows)
    strict_low, strict_high = accuracy_interval(strict, rows)
    return {
        "rows": rows,
        "accuracy": correct / rows,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_strict": strict / rows,
        "accuracy_strict_low": strict_low,
        "accuracy_strict_high": strict_high,
        "unboxed_share": sum(not grade.boxed for grade in grades) / rows,
        "unended_share": sum(not end for end in ended) / rows,
        "timeout_share": sum(grade.outcome == "timeout" for grade in grades) / rows,
    }


def by_kind(kinds: Sequence[str], grades: Sequence[Grade]) -> dict[str, dict[str, float | int]]:
    """`rows` and `accuracy` of each kind of answer; `kinds[i]` is that of `grades[i]`'s row. No intervals: few rows."""
    correct = {
        kind: [g.outcome == "correct" for k, g in zip(kinds, grades, strict=True) if k == kind] for kind in kinds
    }
    return {kind: {"rows": len(found), "accuracy": sum(found) / len(found)} for kind, found in sorted(correct.items())}


def _gain_interval(both: int, won: int, lost: int, neither: int) -> tuple[float, float]:
    """95 % interval of (won - lost) / rows: the hybrid score interval for paired proportions.

    It adds the two Wilson intervals in quadrature, less what the pairing makes them share: phi, their correlation,
    shrunk by n / 2 in its numerator where positive and 0 where a margin is empty. It stays within [-1, 1] and keeps a
    width where the models agree on every row. Source: Newcombe, Stat. Med. 17 (1998) 2635-2650, method 10; worked
    example in Altman et al., Statistics with Confidence (2000), p. 52.
    """
    rows = both + won + lost + neither
    now, was = (both + won) / rows, (both + lost) / rows
    now_low, now_high = accuracy_interval(both + won, rows)
    was_low, was_high = accuracy_interval(both + lost, rows)
    margins = (both + won) * (lost + neither) * (both + lost) * (won + neither)
    product = both * neither - won * lost
    shared = max(product - rows / 2, 0.0) if product > 0 else product
    phi = shared / sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    gain = now - was
    low, high = gain - reach(now - now_low, was_high - was), gain + reach(was - was_low, now_high - now)
    return max(low, -1.0), min(high, 1.0)
