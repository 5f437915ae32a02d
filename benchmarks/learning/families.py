"""Two families of problems that no method trains on: longer sums, and equations of two steps.

The base model's text holds both kinds (ernie_pipeline/demo/corpus.py), the demo's problems neither: so they tell
whether what was learnt from sums of two and three terms and from one-step equations is a skill or a format.
"""

import random

from ernie_pipeline.demo.problems import INSTRUCTION

Problem = tuple[str, str]
"""A question and its reference answer."""


def longer_sums(count: int, seed: int) -> list[Problem]:
    """Sums of four numbers of two digits, worded as the demo's."""
    rng = random.Random(f"longer sums {seed}")
    found = []
    for _ in range(count):
        numbers = [rng.randint(10, 99) for _ in range(4)]
        signs = [rng.choice("+-") for _ in range(3)]
        terms = "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))
        total = numbers[0] + sum(
            number if sign == "+" else -number for sign, number in zip(signs, numbers[1:], strict=True)
        )
        question = f"State the final answer to the following arithmetic problem: {numbers[0]}{terms} ="
        found.append((question, str(total)))
    return found


def two_step_equations(count: int, seed: int) -> list[Problem]:
    """a * (x + b) = c with whole numbers, worded as the demo's equations."""
    rng = random.Random(f"two-step equations {seed}")
    found = []
    for _ in range(count):
        letter, x, a, b = (
            rng.choice("abcdefghijklmnopqrstuvwxyz"),
            rng.randint(1, 20),
            rng.randint(2, 12),
            rng.randint(1, 20),
        )
        words = rng.choice(("Solve for {}: {}", "Determine the value of {} that satisfies: {}"))
        found.append((words.format(letter, f"{a}*({letter} + {b}) = {a * (x + b)}"), str(x)))
    return found


def prompt_of(question: str) -> str:
    """As the demo's chat template has it."""
    return f"<s>{INSTRUCTION}{question} Answer:"
