"""The demo's problems: arithmetic and algebra of the package reasoning-gym, seeded, in Nemotron's row schema."""

import hashlib
import json
import random
import re
from importlib.metadata import version
from typing import Any

INSTRUCTION = "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n"
"""What nvidia/Nemotron-RL-math-OpenMathReasoning puts before every question."""

FAMILIES: dict[str, dict[str, Any]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 2, "max_digits": 2},
    "products": {"min_digits": 2, "max_digits": 2},
    "gcd": {"min_value": 2, "max_value": 120},
    "lcm": {"min_value": 2, "max_value": 60},
    "fraction_simplification": {"max_value": 20, "min_factor": 2, "max_factor": 15, "styles": ("plain", "latex_frac")},
    "simple_equations": {"min_terms": 2, "max_terms": 2, "min_value": 2, "max_value": 20},
}
"""reasoning-gym's families and their bounds: within what a model of 7 million parameters can learn to do."""


def demo_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows of the families in turn, shuffled; the same ones for the same seed."""
    import reasoning_gym  # a second of imports that only this source needs

    share, extra = divmod(count, len(FAMILIES))
    rows = []
    for position, (family, bounds) in enumerate(FAMILIES.items()):
        size = share + (position < extra)
        # an entry's own seed is seed + index, so families of one seed must start far apart
        first = seed * 1_000_000_007 + position * 10_000_019
        for entry in reasoning_gym.create_dataset(family, size=size, seed=first, **bounds) if size else ():
            rows.append(_row(entry["question"].strip(), entry["answer"].strip()))
    random.Random(seed).shuffle(rows)
    return rows


def demo_version(count: int, seed: int) -> str:
    """A hash of everything that decides the rows, without making them."""
    made_from = {"count": count, "seed": seed, "families": FAMILIES, "reasoning-gym": version("reasoning-gym")}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _row(question: str, answer: str) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": [{"role": "user", "content": INSTRUCTION + question}]},
        "question": question,
        "expected_answer": answer,
    }


_FRACTION = re.compile(r"\\d?frac\{(\d+)\}\{(\d+)\}")
_UNIT = re.compile(r"(?<![A-Za-z])[a-z](?![A-Za-z])|\d+|[-+*/=,]")
_RUN = re.compile(rf"(?:{_UNIT.pattern})(?: ?(?:{_UNIT.pattern}))*")


def expressions(text: str) -> set[str]:
    """Every problem that stands in a text, in a form that ignores spacing, LaTeX and the order of a commuting pair.

    "Compute 12 + 35 - 8 = 39" holds "12+35-8" and its parts "12+35" and "35-8"; "3*x + 5 = 20" is one problem with its
    letter. Used to keep the demo's problems out of the base model's pre-training text, so it errs towards finding too
    many.
    """
    found: set[str] = set()
    for run in _RUN.findall(_FRACTION.sub(r"\1/\2", text)):
        for statement in _statements(_UNIT.findall(run)):
            found |= {equation for equation in statement.split(",") if "x" in equation and "=" in equation}
            for side in statement.split("="):
                found |= set() if "x" in side else _chains(_UNIT.findall(side))
    return found


def _statements(units: list[str]) -> list[str]:
    """Parted where two operands adjoin, as in "3*z = 12 z = 4"; every letter is x."""
    text = ""
    for unit, before in zip(units, ["", *units], strict=False):
        adjoin = unit.isalnum() and before.isalnum()
        text += (" " if adjoin else "") + ("x" if unit.isalpha() else unit)
    return [statement.strip(",=") for statement in text.split(" ")]


def _chains(units: list[str]) -> set[str]:
    """All contiguous operand-operator-operand... parts, at most four operands long."""
    chains = set()
    for start in range(len(units)):
        for end in range(start + 3, min(start + 7, len(units)) + 1, 2):
            part = units[start:end]
            if all(unit.isdigit() for unit in part[::2]) and not any(unit.isdigit() for unit in part[1::2]):
                chains.add(_canonical(part))
    return chains


def _canonical(part: list[str]) -> str:
    """The smaller operand first where the operator commutes and there are two."""
    if len(part) == 3 and part[1] in "+*,":
        first, last = sorted((part[0], part[2]), key=int)
        return first + part[1] + last
    return "".join(part)
