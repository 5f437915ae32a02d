"""Which prompts each step practises, and with which seeds their answers are drawn.

All of it is a pure function of the problems' number and of the recipe, so that a resumed run samples the same.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from ernie_pipeline.recipe.sections import Grpo, Training
from ernie_pipeline.training.grpo.problems import Problem, Problems
from ernie_pipeline.training.rows import Row
from ernie_pipeline.training.schedule.order import Plan, sample_order


def number_of_steps(settings: Training, grpo: Grpo, problems: int) -> int:
    """Optimizer steps: `max_steps`, or those that see `max_samples` answers, or `epochs` times each problem."""
    if settings.max_steps:
        return settings.max_steps
    if settings.max_samples:
        return math.ceil(settings.max_samples / settings.samples_per_step)
    answers = settings.epochs * problems * grpo.group
    return math.ceil(answers / settings.samples_per_step) * grpo.updates_per_batch


@dataclass(frozen=True)
class GrpoPlan(Plan):
    """What a run practises: see `grpo_plan`. `steps` has a problem's number once for each answer to it.

    `lengths` are what a prompt with its answer has at most, of any problem: which ones a step is filled up with, and
    how long their answers are, is known when they are there.
    """

    problems: Problems
    grpo: Grpo
    prompts: list[list[int]] = field(init=False)
    """The problems that each batch of answers begins with."""

    def __post_init__(self) -> None:
        settings, grpo, number = self.settings, self.grpo, len(self.problems.practised)
        steps = number_of_steps(settings, grpo, number)
        size, batches = settings.samples_per_step // grpo.group, -(-steps // grpo.updates_per_batch)
        order = sample_order(number, settings.seed, batches * size)
        prompts = [order[start : start + size] for start in range(0, len(order), size)]
        longest = max(len(problem.ids) for problem in self.problems.practised) + grpo.max_new_tokens
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "lengths", [longest] * number)
        answers = [[problem for problem in batch for _ in range(grpo.group)] for batch in prompts]
        object.__setattr__(self, "steps", [answers[step // grpo.updates_per_batch] for step in range(steps)])

    def tokens(self, step: int) -> int:
        """Not known beforehand."""
        return 0

    def further_prompts(self, batch: int, draw: int, used: Sequence[int], number: int) -> list[int]:
        """At most `number` problems that a batch has not used, for its draw 2, 3, ..."""
        taken = set(used)
        left = [problem for problem in range(len(self.problems.practised)) if problem not in taken]
        return random.Random(f"{self.grpo.seed}: batch {batch}, draw {draw}").sample(left, min(number, len(left)))

    def seed(self, batch: int, place: int, answer: int) -> int:
        """What an answer is drawn by: the `answer`-th to the prompt in this `place` of a batch."""
        text = f"{self.grpo.seed}: batch {batch}, prompt {place}, answer {answer}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 2


def grpo_plan(settings: Training, grpo: Grpo, problems: Problems) -> GrpoPlan:
    """The plan of a run over `problems`."""
    rows, eval_rows = ([_prompt(problem) for problem in part] for part in problems)
    return GrpoPlan(settings, rows, eval_rows, problems, grpo)


def _prompt(problem: Problem) -> Row:
    return Row(problem.ids, len(problem.ids))
