"""Trainers of the demo model's first two layers, by a reward that they can learn within seconds."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.execution import PROFILES
from ernie_pipeline.recipe.sections import Grpo, Training
from ernie_pipeline.training.grpo.rewards import Judge, Reward, reward

MakeGrpo = Callable[..., Any]

USUAL_GRPO = {"group": 4, "max_new_tokens": 6, "eval_problems": 4, "format_reward": 0.0}
USUAL = {"method": "grpo", "samples_per_step": 8, "max_steps": 4, "eval_every": 2, "log_every": 1}
USUAL |= {"learning_rate": 3e-3, "optimizer": "adamw_torch"}


def likes_digits(answers: Sequence[str], ended: Sequence[bool], references: Sequence[str]) -> list[Reward]:
    """Right is an answer with a digit in it: what two layers do now and then."""
    return [reward(True, any(sign.isdigit() for sign in answer), 0.0) for answer in answers]


def nothing_is_right(answers: Sequence[str], ended: Sequence[bool], references: Sequence[str]) -> list[Reward]:
    return [reward(False, False, 0.0)] * len(answers)


@pytest.fixture
def make_grpo(demo_adapter: Any) -> Iterator[MakeGrpo]:
    """Makes trainers on twelve problems; at the end the model is as it was. Keywords but those of `make` are the
    recipe's section training, `grpo` is its section grpo."""
    yield from grpo_trainers_of(demo_adapter)


@pytest.fixture
def make_grouped_grpo(grouped_adapter: Any) -> Iterator[MakeGrpo]:
    """Of the same model as backend `grouped` has it."""
    yield from grpo_trainers_of(grouped_adapter)


def grpo_trainers_of(loaded: Any) -> Iterator[MakeGrpo]:
    from ernie_pipeline.models.copies import copy_to_cpu
    from ernie_pipeline.training.config import trainer_config
    from ernie_pipeline.training.grpo.plan import grpo_plan
    from ernie_pipeline.training.grpo.problems import Problem, set_aside
    from ernie_pipeline.training.grpo.trainer import GrpoTrainer
    from ernie_pipeline.training.ranks import Ranks
    from ernie_pipeline.training.resume import Saved, set_weights

    before = copy_to_cpu(loaded.trainable())
    rng = random.Random(0)
    problems = [Problem(f"{n:016x}", [rng.randrange(5, 700) for _ in range(3 + n % 5)], str(n)) for n in range(12)]

    def as_it_was() -> None:
        loaded.module.zero_grad()
        set_weights(loaded.trainable(), before)
        loaded.module.eval()

    def make(
        said: list[str] | None = None,
        *,
        report: Callable[[str, dict[str, Any]], None] | None = None,
        checkpoints: Path | None = None,
        ranks: Any = None,
        execution: dict[str, Any] | None = None,
        judge: Judge | None = likes_digits,
        grpo: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        as_it_was()
        recipe, own = Training(**{**USUAL, **settings}), Grpo(**{**USUAL_GRPO, **(grpo or {})})
        tell = report or (lambda line, values: said.append(line) if said is not None else None)
        needed = recipe.samples_per_step // own.group
        plan = grpo_plan(recipe, own, set_aside(problems, own.eval_problems, needed))
        return GrpoTrainer(
            loaded,
            trainer_config(recipe, len(plan.steps), device="cpu"),
            plan,
            ranks=ranks or Ranks(),
            saved=Saved(checkpoints, repr((recipe, own)), ranks or Ranks(), tell),
            report=tell,
            execution=PROFILES["cpu"].model_copy(update=execution or {}),
            judge=judge,
        )

    yield make
    as_it_was()
