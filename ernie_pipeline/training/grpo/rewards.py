"""What an answer is worth."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ernie_pipeline.grading.extract import last_boxed
from ernie_pipeline.grading.grade import Grader, is_strict


class Reward(NamedTuple):
    """Of one answer. `formatted`: in a box and ended by itself, right or wrong; `solved`: that and right; `timed_out`:
    its grading ran into the time limit, so it counts as wrong."""

    value: float
    formatted: bool
    solved: bool
    timed_out: bool = False


Judge = Callable[[Sequence[str], Sequence[bool], Sequence[str]], list[Reward]]
"""Rewards answers, given their texts, whether each ended by itself, and their reference answers."""


def reward(formatted: bool, solved: bool, format_reward: float) -> Reward:
    """`format_reward` for an answer that is boxed and ended, and 1 more if it is right; else 0.

    A right answer without a box, or one that the limit of new tokens cut off, gets nothing: it is not what is asked
    for, and to reward it would teach to leave the box out, or to go on for ever.
    """
    return Reward(format_reward * formatted + solved, formatted, solved)


def graded(grader: Grader, format_reward: float) -> Judge:
    """By the grader that evaluates, which raises `PipelineError`. Only what can be right in strict form is graded."""

    def judge(answers: Sequence[str], ended: Sequence[bool], references: Sequence[str]) -> list[Reward]:
        formatted = [end and last_boxed(answer) is not None for answer, end in zip(answers, ended, strict=True)]
        asked = [number for number, each in enumerate(formatted) if each]
        grades = grader.grade([answers[number] for number in asked], [references[number] for number in asked])
        found = dict(zip(asked, grades, strict=True))
        solved = {number for number, grade in found.items() if is_strict(grade, ended[number])}
        late = {number for number, grade in found.items() if grade.outcome == "timeout"}
        given = [reward(each, number in solved, format_reward) for number, each in enumerate(formatted)]
        return [each._replace(timed_out=number in late) for number, each in enumerate(given)]

    return judge
