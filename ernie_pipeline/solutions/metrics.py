"""What the attempts say of the model and of each problem."""

from collections.abc import Sequence
from typing import Any, Literal

from ernie_pipeline.grading.attempts import by_problem, pass_at, powers_up_to
from ernie_pipeline.grading.intervals import wilson
from ernie_pipeline.solutions.attempts import Attempt

BINS = 10

Class = Literal["always", "sometimes", "never", "truncated"]
"""How a problem's attempts came out: all right, some, none; or none, and all cut off by the limit of new tokens."""


def problem_rows(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """A row for each problem: row_id, question, kind, attempts, right, pass_rate, truncated, class, kept."""
    return [_problem_row(own) for own in by_problem(attempts).values()]


def _problem_row(own: Sequence[Attempt]) -> dict[str, Any]:
    right, truncated = sum(each.strict for each in own), sum(not each.ended for each in own)
    return {
        "row_id": own[0].row_id,
        "question": own[0].question,
        "kind": own[0].kind,
        "attempts": len(own),
        "right": right,
        "pass_rate": right / len(own),
        "truncated": truncated,
        "class": _class_of(len(own), right, truncated),
        "kept": sum(each.kept for each in own),
    }


def _class_of(attempts: int, right: int, truncated: int) -> Class:
    if right:
        return "always" if right == attempts else "sometimes"
    return "truncated" if truncated == attempts else "never"


def summarise(attempts: Sequence[Attempt], problems: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all attempts; `problems` is `problem_rows` of them. Raises `ValueError` for none.

    problems          problems that were tried
    always, sometimes, never, truncated   problems by their class over all rounds
    solved            problems with a right solution; solved_share: of all
    kept              solutions chosen
    pass_rates        problems by their pass rate, in ten equal parts of [0, 1]
    rounds            the figures of each round's attempts, see `_round`
    and those of the last round beside these.
    """
    numbers = sorted({each.round for each in attempts})
    if not numbers:
        raise ValueError("no attempts")
    rounds = [_round([each for each in attempts if each.round == number], number) for number in numbers]
    solved = sum(row["right"] > 0 for row in problems)
    return {
        **rounds[-1],
        "problems": len(problems),
        **{name: sum(row["class"] == name for row in problems) for name in ("always", "sometimes", "never")},
        "all_truncated": sum(row["class"] == "truncated" for row in problems),
        "solved": solved,
        "solved_share": solved / len(problems),
        "kept": sum(row["kept"] for row in problems),
        "pass_rates": histogram([row["pass_rate"] for row in problems]),
        "rounds": rounds,
    }


def _round(attempts: Sequence[Attempt], number: int) -> dict[str, Any]:
    """Of one round: attempts, pass_rate (strict: right, boxed, ended) with its 95 % interval, truncated_share,
    unboxed_share, timeout_share, pass_at (k: share of problems that k attempts are expected to solve), by_kind."""
    own = [([each.strict for each in tried]) for tried in by_problem(attempts).values()]
    total, rate = len(attempts), sum(each.strict for each in attempts) / len(attempts)
    low, high = wilson(rate, len(own))  # the problems are independent, the attempts at one are not
    kinds = sorted({each.kind for each in attempts})
    return {
        "round": number,
        "attempts": total,
        "pass_rate": rate,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "truncated_share": sum(not each.ended for each in attempts) / total,
        "unboxed_share": sum(not each.boxed for each in attempts) / total,
        "timeout_share": sum(each.outcome == "timeout" for each in attempts) / total,
        "pass_at": {str(k): _mean([pass_at(len(o), sum(o), k) for o in own]) for k in powers_up_to(min(map(len, own)))},
        "by_kind": {kind: _kind([each.strict for each in attempts if each.kind == kind]) for kind in kinds},
    }


def histogram(pass_rates: Sequence[float]) -> list[int]:
    """How many lie in each tenth of [0, 1]: the first has 0, the last has 1."""
    counts = [0] * BINS
    for rate in pass_rates:
        counts[min(int(rate * BINS), BINS - 1)] += 1
    return counts


def _kind(strict: Sequence[bool]) -> dict[str, float | int]:
    return {"attempts": len(strict), "pass_rate": sum(strict) / len(strict)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
