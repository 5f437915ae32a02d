"""The router's logits from bfloat16 parts against transformers' own router, and against float64."""

from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped import router
from ernie_pipeline.models.grouped.router import choose_experts, split_routers
from ernie_pipeline.models.routing import Replay, recording, replaying

SIZE, EXPERTS, K = 2560, 64, 6


@pytest.fixture
def gate() -> Any:
    """With weights that make logits of up to 5."""
    from transformers import Ernie4_5_MoeConfig
    from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import Ernie4_5_MoeTopKRouter

    torch.manual_seed(0)
    gate = Ernie4_5_MoeTopKRouter(Ernie4_5_MoeConfig(hidden_size=SIZE, moe_num_experts=EXPERTS, moe_k=K))
    torch.nn.init.normal_(gate.weight, std=0.02)
    torch.nn.init.normal_(gate.moe_statics.e_score_correction_bias, std=0.01)
    gate.requires_grad_(False)
    split_routers(gate)
    return gate


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(200, SIZE, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What has gone into products of parts."""
    heard, usual = list[torch.Tensor](), router._products
    monkeypatch.setattr(router, "_products", lambda x, y: (heard.append(x), usual(x, y))[1])
    return heard


def logits_of(gate: Any, hidden: torch.Tensor) -> torch.Tensor:
    with router._Linear(hidden, gate.parts):
        logits: torch.Tensor = gate(hidden)[0]
    return logits


def test_it_chooses_the_experts_that_transformers_chooses_with_its_weights_and_gradient(
    gate: Any, hidden: torch.Tensor, taken: list[torch.Tensor]
) -> None:
    own, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    (weights, chosen), (_, wanted, wanted_chosen) = choose_experts(gate, own), gate(theirs)
    assert len(taken) == 1  # transformers still computes its logits where they are taken over
    assert torch.equal(chosen, wanted_chosen)
    assert weights.dtype == wanted.dtype == torch.bfloat16
    assert (weights.float() - wanted.float()).abs().max() <= 2**-8 * wanted.float().max()
    unlike = torch.arange(1.0, 1 + K)
    (weights * unlike).sum().backward()
    (wanted * unlike).sum().backward()
    assert own.grad is not None
    assert theirs.grad is not None
    assert (own.grad.float() - theirs.grad.float()).norm() < 5e-3 * theirs.grad.float().norm()


def test_in_fp32_and_without_parts_it_is_transformers_own(
    gate: Any, hidden: torch.Tensor, taken: list[torch.Tensor]
) -> None:
    assert all(map(torch.equal, choose_experts(gate, hidden.float()), gate(hidden.float())[1:]))
    del gate.parts
    assert all(map(torch.equal, choose_experts(gate, hidden), gate(hidden)[1:]))
    assert taken == []


def test_logits_and_gradient_are_those_of_float64_and_not_of_rounded_weights(gate: Any, hidden: torch.Tensor) -> None:
    exact, own = hidden.double() @ gate.weight.double().t(), hidden.clone().requires_grad_()
    logits = logits_of(gate, own)
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 2e-6
    assert (hidden.double() @ gate.weight.to(torch.bfloat16).double().t() - exact).abs().max() > 1e-3
    grad = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    logits.backward(grad)
    assert own.grad is not None
    of_exact = grad.double() @ gate.weight.double()
    rounding = (of_exact.to(torch.bfloat16) - of_exact).norm()
    assert (own.grad - of_exact).norm() < 1.01 * rounding


def by_matrix_units(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """As they sum: after every 16 products the sum is cut off to 24 bits."""
    total = torch.zeros(*x.shape[:2], y.shape[2], dtype=torch.float64)
    for start in range(0, x.shape[2], 16):
        deep = slice(start, start + 16)
        mantissa, exponent = torch.frexp(total + x[:, :, deep].double() @ y[:, deep].double())
        total = torch.ldexp(torch.trunc(mantissa * 2**24) / 2**24, exponent)
    return total.float()


def test_in_chunks_matrix_units_make_no_larger_an_error_than_fp32_does_on_a_card(
    gate: Any, hidden: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "_products", by_matrix_units)
    exact = hidden.double() @ gate.weight.double().t()
    errors = {}
    for chunks in (1, router.CHUNKS):
        monkeypatch.setattr(router, "CHUNKS", chunks)
        errors[chunks] = (logits_of(gate, hidden) - exact).abs().max().item()
    assert exact.abs().max() > 4
    assert 1e-5 < errors[1] < 2e-5  # 1.6e-5 on an H100
    assert errors[4] < 4e-6  # fp32: 3.4e-6 there


def test_choices_are_recorded_and_replayed(gate: Any, hidden: torch.Tensor, taken: list[torch.Tensor]) -> None:
    with recording(gate) as heard:
        _, chosen = choose_experts(gate, hidden)
    assert torch.equal(heard[0], chosen)
    other = (chosen + 1) % EXPERTS
    with replaying(gate, Replay([other[:, None]]), [[0]], len(hidden)):
        weights, replayed = choose_experts(gate, hidden)
    assert torch.equal(replayed, other)
    shares = logits_of(gate, hidden).softmax(-1).gather(-1, other)
    assert torch.equal(weights, (shares / shares.sum(-1, keepdim=True)).to(torch.bfloat16))
    assert len(taken) == 3
