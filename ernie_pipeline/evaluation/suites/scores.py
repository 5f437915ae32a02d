"""What one model's answers to each problem are worth: of the greedy one, and of n sampled ones, for each k of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import stdev
from typing import NamedTuple

from ernie_pipeline.evaluation.suites.attempts import GREEDY, Attempt
from ernie_pipeline.grading.attempts import by_problem as attempts_by_problem
from ernie_pipeline.grading.attempts import pass_at, powers_up_to
from ernie_pipeline.grading.normalize import normalize

RIGHT = ""
"""The vote of each right answer: they are all equal to the reference answer, and so to one another."""
LONGEST_VOTE = 200


@dataclass(frozen=True)
class Answered:
    """A problem with its attempts: what it asks stands in the `greedy` one. `right`: whether each sampled one is.

    `votes`: what each sampled answer says, `RIGHT` if it is right, None for nothing.
    """

    greedy: Attempt
    right: tuple[bool, ...]
    votes: tuple[str | None, ...]

    @property
    def share(self) -> float:
        """The share of right answers: of the sampled ones or, where there are none, of the greedy one."""
        return sum(self.right) / len(self.right) if self.right else float(self.greedy.correct)


def by_problem(attempts: Sequence[Attempt]) -> dict[str, Answered]:
    """The problems by their `row_id`, in the attempts' order."""
    tried = attempts_by_problem(attempts)
    return {row_id: _answered(sorted(own, key=lambda each: each.sample)) for row_id, own in tried.items()}


def _answered(tried: Sequence[Attempt]) -> Answered:
    greedy, *sampled = tried
    assert greedy.sample == GREEDY, "each problem has a greedy attempt"
    return Answered(greedy, tuple(each.correct for each in sampled), tuple(_vote(each) for each in sampled))


def _vote(attempt: Attempt) -> str | None:
    if attempt.correct:
        return RIGHT
    if attempt.extracted is None:
        return None
    text = attempt.extracted[:LONGEST_VOTE]
    return normalize(text).replace(" ", "") or text


class OverSeeds(NamedTuple):
    """How far a figure would be off with other seeds: its standard error, with so many degrees of freedom."""

    error: float
    freedom: int


@dataclass(frozen=True)
class Score:
    """What a figure is for each problem, in their order; `over_seeds` is None where one set of seeds says nothing."""

    values: tuple[float, ...]
    over_seeds: OverSeeds | None = None


Scores = Mapping[str, Mapping[int, Score]]
"""By figure ("avg", "pass", "maj") and k."""


def scores_of(problems: Sequence[Answered]) -> Scores:
    """The figures of the sampled answers; {} where there are none.

    avg    the share of right answers (avg@n): k is n alone
    pass   the chance that of k answers one is right (pass@k): unbiased, of all n, see `pass_at`
    maj    whether the answer that most of k answers give is right (maj@k), as self-consistency takes it: Wang et al.,
           "Self-consistency improves chain of thought reasoning in language models" (2022). The mean over the n // k
           blocks of k answers that share none; of answers that equally many give, each counts for its share

    Two wrong answers are one where they are spelled alike but for typesetting. So maj@k errs, if at all, upwards.
    """
    number = min((len(each.right) for each in problems), default=0)
    if not number:
        return {}
    ks = powers_up_to(number)
    return {
        "avg": {number: _avg(problems, number)},
        "pass": {k: _pass(problems, number, k) for k in ks},
        "maj": {k: _maj(problems, number, k) for k in ks},
    }


def _avg(problems: Sequence[Answered], number: int) -> Score:
    seeds = [mean([each.right[seed] for each in problems]) for seed in range(number)]
    return Score(tuple(mean(each.right[:number]) for each in problems), _of_independent(seeds))


def _pass(problems: Sequence[Answered], number: int, k: int) -> Score:
    values = tuple(pass_at(number, sum(each.right[:number]), k) for each in problems)
    return Score(values, _jackknife(problems, number, k) if k < number else None)


def _maj(problems: Sequence[Answered], number: int, k: int) -> Score:
    starts = range(0, number - k + 1, k)
    own = [[majority(each.votes[at : at + k]) for at in starts] for each in problems]
    blocks = [mean([each[block] for each in own]) for block in range(len(starts))]
    return Score(tuple(mean(each) for each in own), _of_independent(blocks))


def _of_independent(values: Sequence[float]) -> OverSeeds | None:
    """Of the mean of values that have no seed in common."""
    return OverSeeds(stdev(values) / sqrt(len(values)), len(values) - 1) if len(values) > 1 else None


def _jackknife(problems: Sequence[Answered], number: int, k: int) -> OverSeeds:
    """Of pass@k, from what it is without each one of the seeds.

    Rather too large than too small: Efron and Stein, Annals of Statistics 9 (1981) 586-596.
    """
    totals = [sum(each.right[:number]) for each in problems]
    without = [
        mean([pass_at(number - 1, total - each.right[seed], k) for each, total in zip(problems, totals, strict=True)])
        for seed in range(number)
    ]
    centre = mean(without)
    return OverSeeds(sqrt((number - 1) / number * sum((each - centre) ** 2 for each in without)), number - 1)


def majority(votes: Sequence[str | None]) -> float:
    """1 where most of the votes are `RIGHT`, 0 where they are not; where several lead, the chance to draw that one."""
    counts = Counter(vote for vote in votes if vote is not None)
    most = max(counts.values(), default=0)
    leading = [vote for vote, count in counts.items() if count == most]
    return 1 / len(leading) if RIGHT in leading else 0.0


def mean(values: Sequence[float]) -> float:
    """Their mean. Raises `ZeroDivisionError` for none."""
    return sum(values) / len(values)
