"""What one model's answers to each problem are worth: of the greedy one, and of n sampled ones, for each k of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ernie_pipeline.evaluation.suites.attempts import GREEDY, Attempt
from ernie_pipeline.grading.attempts import pass_at, powers_up_to
from ernie_pipeline.grading.normalize import normalize

RIGHT = ""
"""The vote of each right answer: they are all equal to the reference answer, and so to one another."""
LONGEST_VOTE = 200


@dataclass(frozen=True)
class Answered:
    """A problem with its attempts. `votes`: what each sampled answer says, `RIGHT` if it is right, None for nothing."""

    row_id: str
    question: str
    reference: str
    kind: str
    level: str | None
    subject: str | None
    greedy: Attempt
    right: tuple[bool, ...]
    votes: tuple[str | None, ...]

    @property
    def share(self) -> float:
        """The share of right answers: of the sampled ones or, where there are none, of the greedy one."""
        return sum(self.right) / len(self.right) if self.right else float(self.greedy.correct)


def by_problem(attempts: Sequence[Attempt]) -> dict[str, Answered]:
    """The problems by their `row_id`, in the attempts' order."""
    own: dict[str, list[Attempt]] = {}
    for each in attempts:
        own.setdefault(each.row_id, []).append(each)
    return {row_id: _answered(sorted(tried, key=lambda each: each.sample)) for row_id, tried in own.items()}


def _answered(tried: Sequence[Attempt]) -> Answered:
    greedy, *sampled = tried
    assert greedy.sample == GREEDY, "each problem has a greedy attempt"
    return Answered(
        row_id=greedy.row_id,
        question=greedy.question,
        reference=greedy.reference,
        kind=greedy.kind,
        level=greedy.level,
        subject=greedy.subject,
        greedy=greedy,
        right=tuple(each.correct for each in sampled),
        votes=tuple(_vote(each) for each in sampled),
    )


def _vote(attempt: Attempt) -> str | None:
    if attempt.correct:
        return RIGHT
    if attempt.extracted is None:
        return None
    text = attempt.extracted[:LONGEST_VOTE]
    return normalize(text).replace(" ", "") or text


@dataclass(frozen=True)
class Score:
    """What a figure is for each problem, in their order; `of_seeds`: its mean over all problems for each set of seeds
    that shares none with another, where there are two or more."""

    values: tuple[float, ...]
    of_seeds: tuple[float, ...] = ()


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
    return Score(tuple(mean(each.right[:number]) for each in problems), tuple(seeds) if number > 1 else ())


def _pass(problems: Sequence[Answered], number: int, k: int) -> Score:
    values = tuple(pass_at(number, sum(each.right[:number]), k) for each in problems)
    return Score(values, _of_blocks([[any(each.right[at : at + k]) for at in _blocks(number, k)] for each in problems]))


def _maj(problems: Sequence[Answered], number: int, k: int) -> Score:
    own = [[majority(each.votes[at : at + k]) for at in _blocks(number, k)] for each in problems]
    return Score(tuple(mean(blocks) for blocks in own), _of_blocks(own))


def majority(votes: Sequence[str | None]) -> float:
    """1 where most of the votes are `RIGHT`, 0 where they are not; where several lead, the chance to draw that one."""
    counts = Counter(vote for vote in votes if vote is not None)
    most = max(counts.values(), default=0)
    leading = [vote for vote, count in counts.items() if count == most]
    return 1 / len(leading) if RIGHT in leading else 0.0


def _blocks(number: int, k: int) -> range:
    """Where each block of k seeds begins."""
    return range(0, number - k + 1, k)


def _of_blocks(own: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each block, the mean over the problems; nothing of one alone."""
    blocks = len(own[0])
    return tuple(mean([each[block] for each in own]) for block in range(blocks)) if blocks > 1 else ()


def mean(values: Sequence[float]) -> float:
    """Their mean. Raises `ZeroDivisionError` for none."""
    return sum(values) / len(values)
