"""How much better an answer is than the others to the same prompt."""

import statistics
from collections.abc import Sequence
from typing import Literal

Normalization = Literal["dr_grpo", "grpo"]

_LEAST_DEVIATION = 1e-6


def advantages(rewards: Sequence[float], normalization: Normalization) -> list[float]:
    """Of each answer of a group: its reward less the group's mean.

    `dr_grpo` (Liu et al. 2025, "Understanding R1-Zero-Like Training", arXiv:2503.20783, section 3.2): that alone.
    `grpo` (Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.2): divided by the group's standard
    deviation too, which gives prompts that are nearly always or nearly never solved more weight than others.
    """
    mean = statistics.fmean(rewards)
    centred = [value - mean for value in rewards]
    if normalization == "dr_grpo":
        return centred
    deviation = statistics.stdev(rewards) + _LEAST_DEVIATION
    return [value / deviation for value in centred]


def has_signal(rewards: Sequence[float]) -> bool:
    """Whether a group's answers differ in reward: if not, all advantages are 0, and nothing is learned from it."""
    return max(rewards) > min(rewards)


def answer_scale(length: int, normalization: Normalization) -> float:
    """What an answer's tokens count: 1, or one over its `length` in tokens for "grpo", which so favours short right
    answers and long wrong ones (Liu et al. 2025, section 3.1)."""
    return 1.0 if normalization == "dr_grpo" else 1.0 / length


def loss_divisor(answers: int, max_new_tokens: int, normalization: Normalization) -> float:
    """What a step's sum over the tokens of `answers` answers is divided by: a constant, whatever their lengths.

    `dr_grpo`: answers x the limit of new tokens (Liu et al. 2025, section 3.2: the generation budget). `grpo`: answers.
    """
    return float(answers * max_new_tokens if normalization == "dr_grpo" else answers)
