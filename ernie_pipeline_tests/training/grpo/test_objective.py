"""The parts of the objective: against values by hand, and against autograd of the objective as its paper has it."""

import itertools

import pytest
import torch

from ernie_pipeline.training.grpo.advantages import advantages, answer_scale, has_signal, loss_divisor
from ernie_pipeline.training.grpo.rewards import Reward, reward
from ernie_pipeline.training.grpo.weights import Objective, kl_terms, token_weights

OBJECTIVE = Objective(clip_low=0.2, clip_high=0.28, max_importance=2.0, kl_to_base=0.0)
TOKENS = 12


@pytest.mark.parametrize(
    ("formatted", "solved", "wanted"),
    [(False, False, 0.0), (True, False, 0.1), (True, True, 1.1)],
)
def test_the_reward_of_an_answer(formatted: bool, solved: bool, wanted: float) -> None:
    assert reward(formatted, solved, 0.1) == Reward(pytest.approx(wanted), formatted, solved)  # type: ignore[arg-type]


def test_advantages_by_hand() -> None:
    assert advantages([1.1, 0.1, 0.1, 0.0], "dr_grpo") == pytest.approx([0.775, -0.225, -0.225, -0.325])
    # the deviation: sqrt((0.775**2 + 2 * 0.225**2 + 0.325**2) / 3) = 0.519
    wanted = [0.775 / 0.518813, -0.225 / 0.518813, -0.225 / 0.518813, -0.325 / 0.518813]
    assert advantages([1.1, 0.1, 0.1, 0.0], "grpo") == pytest.approx(wanted, rel=1e-4)
    for equal in ([1.1] * 4, [0.0] * 4):
        assert advantages(equal, "grpo") == advantages(equal, "dr_grpo") == [0.0] * 4
        assert not has_signal(equal)
    assert has_signal([0.0, 0.0, 0.1])


def test_only_grpo_weighs_answers_by_their_length() -> None:
    assert [answer_scale(n, "dr_grpo") for n in (1, 40)] == [1, 1]
    assert [answer_scale(n, "grpo") for n in (1, 40)] == [1, 1 / 40]
    assert loss_divisor(64, 256, "dr_grpo") == 64 * 256
    assert loss_divisor(64, 256, "grpo") == 64


def test_weights_by_hand() -> None:
    old = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.5]))
    sampled = torch.log(torch.tensor([0.5, 0.25, 0.1, 0.8]))  # importance 1, 2, 5 (cut to 2), 0.625
    current = torch.log(torch.tensor([0.5, 0.55, 0.3, 0.9]))  # ratio 1, 1.1, 0.6, 1.8
    found = token_weights(2.0, current, old, sampled, None, OBJECTIVE)
    assert found.tolist() == pytest.approx([2.0, 2 * 1.1 * 2, 2 * 0.6 * 2, 0.0])  # likelier than 1.28 is clipped
    found = token_weights(-2.0, current, old, sampled, None, OBJECTIVE)
    assert found.tolist() == pytest.approx([-2.0, -2 * 1.1 * 2, 0.0, -0.625 * 1.8 * 2])  # less than 0.8 is
    base = torch.log(torch.tensor([0.5, 1.1, 0.15, 0.9]))
    pulled = token_weights(0.0, current, old, sampled, base, Objective(0.2, 0.28, 2.0, 0.1))
    assert pulled.tolist() == pytest.approx([0.0, 0.1, -0.05, 0.0], abs=1e-6)


@pytest.mark.parametrize(("advantage", "kl"), [*itertools.product([1.5, -0.7], [0.0, 0.3])])
def test_the_gradient_is_that_of_the_clipped_objective(advantage: float, kl: float) -> None:
    """PPO's (Schulman et al. 2017, equation 7), with truncated importance weights and the KL penalty of GRPO
    (DeepSeekMath, equations 3 and 4), by autograd on a policy of logits; ours as a weighted likelihood."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(TOKENS, 7, generator=generator, dtype=torch.double, requires_grad=True)
    tokens = torch.randint(7, (TOKENS,), generator=generator)

    def noisy(by: float) -> torch.Tensor:
        moved = logits.detach() + by * torch.randn(TOKENS, 7, generator=generator, dtype=torch.double)
        return moved.log_softmax(-1)[torch.arange(TOKENS), tokens]

    old, sampled, base = noisy(0.5), noisy(0.8), noisy(0.5)
    objective = Objective(0.2, 0.28, 2.0, kl)

    current = logits.log_softmax(-1)[torch.arange(TOKENS), tokens]
    ratio, importance = (current - old).exp(), (old - sampled).exp().clamp(max=2.0)
    clipped = ratio.clamp(0.8, 1.28)
    assert (clipped != ratio).any(), "where nothing is clipped, nothing is shown"
    penalty = (base - current).exp() - (base - current) - 1
    (-(importance * torch.minimum(ratio * advantage, clipped * advantage)) + kl * penalty).sum().backward()
    wanted = logits.grad

    assert wanted is not None
    logits.grad = None
    current = logits.log_softmax(-1)[torch.arange(TOKENS), tokens]
    weights = token_weights(advantage, current.detach(), old, sampled, base, objective)
    (weights * -current).sum().backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, wanted, rtol=1e-9, atol=1e-12)


def test_the_mismatch_is_what_the_two_distributions_diverge_by() -> None:
    """The mean over what one of them draws; never negative."""
    generator = torch.Generator().manual_seed(0)
    q, p = (torch.randn(5, generator=generator).log_softmax(-1) for _ in range(2))
    drawn = torch.multinomial(q.exp(), 200_000, replacement=True, generator=generator)
    terms = kl_terms(p[drawn], q[drawn])
    assert (terms >= 0).all()
    assert float(terms.mean()) == pytest.approx(float((q.exp() * (q - p)).sum()), rel=0.02)
    assert float(kl_terms(q, q).sum()) == 0


@pytest.mark.parametrize("normalization", ["dr_grpo", "grpo"])
def test_a_toy_policy_learns_what_is_rewarded(normalization: str) -> None:
    """Three tokens of four, of which one sequence in sixty-four is right: sampled, rewarded, made likelier."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.zeros(3, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    target = torch.tensor([2, 0, 3])

    def sample() -> torch.Tensor:
        return torch.stack([torch.multinomial(row, 16, True, generator=generator) for row in logits.softmax(-1)], 1)

    for _ in range(80):
        answers = sample()
        rewards = (answers == target).float().mean(1).tolist()
        logprobs = logits.log_softmax(-1)[torch.arange(3), answers]
        each = zip(advantages(rewards, normalization), logprobs.detach(), strict=True)  # type: ignore[arg-type]
        weights = torch.stack([token_weights(a, own, own, own, None, OBJECTIVE) for a, own in each])
        optimizer.zero_grad()
        ((weights * -logprobs).sum() / 16).backward()
        optimizer.step()
    assert (sample() == target).all(1).float().mean() > 0.9
