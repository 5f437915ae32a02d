"""The router from 16-bit parts against transformers' own in fp32."""

from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped.router import RouterLogits, choose_experts


@pytest.fixture
def gate() -> Any:
    from transformers import Ernie4_5_MoeConfig
    from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import Ernie4_5_MoeTopKRouter

    torch.manual_seed(0)
    gate = Ernie4_5_MoeTopKRouter(Ernie4_5_MoeConfig(hidden_size=320, moe_num_experts=16, moe_k=3))
    torch.nn.init.normal_(gate.weight, std=0.1)
    torch.nn.init.normal_(gate.moe_statics.e_score_correction_bias, std=0.05)
    return gate.requires_grad_(False)


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(200, 320, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


def test_it_chooses_the_experts_and_weights_that_transformers_chooses(gate: Any, hidden: torch.Tensor) -> None:
    own, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    weights, chosen = choose_experts(gate, own)
    _, wanted, wanted_chosen = gate(theirs)
    assert torch.equal(chosen, wanted_chosen)
    assert weights.dtype == wanted.dtype == torch.bfloat16
    assert (weights.float() - wanted.float()).abs().max() <= 2**-8 * wanted.float().max()
    unlike = torch.arange(1.0, 4.0)
    (weights * unlike).sum().backward()
    (wanted * unlike).sum().backward()
    assert own.grad is not None
    assert theirs.grad is not None
    assert (own.grad.float() - theirs.grad.float()).norm() < 5e-3 * theirs.grad.float().norm()


def test_in_fp32_it_is_transformers_own(gate: Any, hidden: torch.Tensor) -> None:
    weights, chosen = choose_experts(gate, hidden.float())
    _, wanted, wanted_chosen = gate(hidden.float())
    assert torch.equal(chosen, wanted_chosen)
    assert torch.equal(weights, wanted)


def test_logits_are_those_of_fp32_and_not_of_rounded_weights(gate: Any, hidden: torch.Tensor) -> None:
    exact = hidden.double() @ gate.weight.double().t()
    logits: torch.Tensor = RouterLogits.apply(hidden, gate.weight)  # type: ignore[no-untyped-call]
    assert logits.dtype == torch.float32
    assert (logits - exact).norm() < 1e-6 * exact.norm()
    rounded = hidden.double() @ gate.weight.to(torch.bfloat16).double().t()
    assert (rounded - exact).norm() > 1e-4 * exact.norm()
