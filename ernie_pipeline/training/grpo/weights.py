"""A policy gradient as a likelihood: what each token's log-probability is multiplied by.

A step minimises the sum of weight x negative log-likelihood (`TrainingBackend.forward_backward`). With weights held
constant, its gradient is that of the clipped objective, see README.md: where a weight is positive, the token becomes
likelier. All tensors [tokens], fp32; log-probabilities in nats at the temperature of sampling.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Objective:
    """What of the recipe's section grpo decides a token's weight."""

    clip_low: float
    clip_high: float
    max_importance: float
    kl_to_base: float


def token_weights(
    advantage: float,
    current: torch.Tensor,
    old: torch.Tensor,
    sampled: torch.Tensor,
    base: torch.Tensor | None,
    objective: Objective,
) -> torch.Tensor:
    """The weights of an answer's tokens.

    `current`: the log-probabilities by the policy as it is; `old`: by the trainer before the first step from these
    answers; `sampled`: by the sampler that drew them; `base`: by the base model, where kl_to_base counts.
    """
    importance = (old - sampled).exp().clamp(max=objective.max_importance)
    ratio = (current - old).exp()
    clipped = ratio > 1 + objective.clip_high if advantage > 0 else ratio < 1 - objective.clip_low
    weights = torch.where(clipped, 0.0, importance * ratio * advantage)
    if base is not None and objective.kl_to_base:
        weights = weights + objective.kl_to_base * (base - current).expm1()
    return weights


def kl_terms(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Of each token, drawn from `q`: an unbiased estimate of KL(q || p) that is never negative.

    Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html): k3.
    """
    difference = p - q
    return difference.expm1() - difference
