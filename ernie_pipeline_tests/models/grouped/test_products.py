"""All experts in one product against a loop over them in float64: the output, and the gradient of all it depends on."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline.models.grouped.experts import TARGETS, GroupedExperts
from ernie_pipeline.models.grouped.flat_parameters import FlatParameters
from ernie_pipeline.models.grouped.fp8_mm import fp8_mm
from ernie_pipeline.models.grouped.nf4_mm import in_torch
from ernie_pipeline.models.grouped.products import route
from ernie_pipeline_tests.models.grouped.demo import FLAT, change, random_experts, stack

TOKENS, HIDDEN = 13, 64
CHOSEN = torch.tensor([[0, 2], [2, 4], [4, 0], [2, 0], [0, 4], [4, 2], [0, 2], [2, 4], [0, 4], [4, 2], [2, 0], [0, 2]])
CHOSEN = torch.cat([CHOSEN, torch.tensor([[4, 0]])])
"""Two of five experts a token; experts 1 and 3, one in the middle of the others, get none."""


def layer(targets: tuple[str, ...], rank: int = 4, alpha: float = 12) -> GroupedExperts:
    """Experts whose adapter counts."""
    torch.manual_seed(3)
    experts = random_experts(hidden=HIDDEN)
    experts.add_adapter(rank, alpha, targets)
    change(experts)
    return experts


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator)
    weights = torch.rand(TOKENS, 2, generator=generator)
    return hidden.requires_grad_(), weights.requires_grad_()


def with_gradients(compute: Any, inner: dict[str, torch.Tensor], chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients of `compute(hidden, chosen, weights)`; `inner` are the parameters beside the inputs."""
    hidden, weights = inputs()
    for parameter in inner.values():
        parameter.grad = None
    if any(parameter.dtype == torch.float64 for parameter in inner.values()) or compute.__name__ == "by_loop":
        hidden, weights = (t.detach().double().requires_grad_() for t in (hidden, weights))
    out = compute(hidden, chosen, weights)
    (out * torch.sin(torch.arange(out.numel())).view_as(out)).sum().backward()
    found = {"output": out.detach(), "hidden": hidden.grad, "weights": weights.grad}
    found |= {name: parameter.grad for name, parameter in inner.items()}
    assert all(value is not None for value in found.values())
    return found  # type: ignore[return-value]


def looped(experts: GroupedExperts, *, adapted: bool, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same by Hu et al.'s equation 3, token by token, in float64."""
    stacks = {}
    for fused in ("gate_up_proj", "down_proj"):
        weight = getattr(experts, fused)
        dequantize(weight, out := torch.empty(weight.quant_state.shape))
        stacks[fused] = out.double()
    gate, up = stacks["gate_up_proj"].chunk(2, dim=1)
    base = {"gate_proj": gate, "up_proj": up, "down_proj": stacks["down_proj"]}
    lora = {n: p.detach().double().requires_grad_() for n, p in experts.named_parameters() if adapted and "lora" in n}
    scale = experts.adapter.scale if experts.adapter else 0.0

    def project(x: torch.Tensor, expert: int, target: str) -> torch.Tensor:
        out = base[target][expert] @ x
        if f"adapter.lora_A.{target}" in lora:
            a, b = (lora[f"adapter.lora_{which}.{target}"][expert] for which in "AB")
            out = out + scale * (b @ (a @ x))
        return out

    def by_loop(hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        outs = []
        for x, own, shares in zip(hidden, chosen.tolist(), weights, strict=True):
            total = torch.zeros(HIDDEN, dtype=torch.float64)
            for expert, share in zip(own, shares, strict=True):
                active = F.silu(project(x, expert, "gate_proj")) * project(x, expert, "up_proj")
                total = total + share * project(active, expert, "down_proj")
            outs.append(total)
        return torch.stack(outs)

    return with_gradients(by_loop, lora, chosen)


def grouped(experts: GroupedExperts, chosen: torch.Tensor = CHOSEN) -> dict[str, torch.Tensor]:
    lora = {name: p for name, p in experts.named_parameters() if "lora" in name and not disabled(experts)}
    return with_gradients(experts.forward, lora, chosen)


def disabled(experts: GroupedExperts) -> bool:
    return experts.adapter is not None and experts.adapter.disable_adapters


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert (value - wanted[name]).norm() < 1e-5 * wanted[name].norm(), name


@pytest.mark.parametrize("rank", [4, 8, 11])
@pytest.mark.parametrize("targets", [TARGETS, ("up_proj",), ("gate_proj",), ("down_proj",), ("up_proj", "down_proj")])
def test_output_and_gradients_are_those_of_a_loop_over_experts(targets: tuple[str, ...], rank: int) -> None:
    experts = layer(targets, rank)
    assert experts.adapter is not None
    assert experts.adapter.scale == 12 / rank
    assert {name.split(".")[-1] for name, _ in experts.adapter.named_parameters()} == set(targets)
    found = grouped(experts)
    same(found, looped(experts, adapted=True, chosen=CHOSEN))
    for name, gradient in found.items():
        if "lora" in name:
            assert all(bool(own.any()) == (number in (0, 2, 4)) for number, own in enumerate(gradient)), name


def test_a_scale_of_one_too() -> None:
    experts = layer(TARGETS, rank=4, alpha=4)
    same(grouped(experts), looped(experts, adapted=True, chosen=CHOSEN))


@pytest.mark.parametrize("first", [True, False])
def test_all_tokens_may_go_to_one_expert(first: bool) -> None:
    experts = layer(TARGETS)
    chosen = torch.full((TOKENS, 1), 0 if first else 4).expand(-1, 2)
    same(grouped(experts, chosen), looped(experts, adapted=True, chosen=chosen))


def test_without_an_adapter_and_with_one_disabled_it_is_the_base() -> None:
    bare, experts = layer(()), layer(TARGETS)
    assert bare.adapter is None
    wanted = looped(bare, adapted=False, chosen=CHOSEN)
    same(grouped(bare), wanted)
    assert experts.adapter is not None
    adapted = grouped(experts)["output"]
    experts.adapter.enable_adapters(False)
    assert torch.equal(grouped(experts)["output"], grouped(bare)["output"])
    experts.adapter.enable_adapters(True)
    assert torch.equal(grouped(experts)["output"], adapted)
    assert (adapted - wanted["output"]).norm() > 0.05 * adapted.norm()  # so the comparison can tell


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_flat_gradients_it_adds_the_same_bits_itself(checkpointing: bool) -> None:
    """Of two passes; and autograd does, as ever, where somebody took the flat gradients away."""
    plain, bound = layer(TARGETS), layer(TARGETS)
    flat, by_autograd = FlatParameters([p for p in bound.parameters() if p.requires_grad]), list[str]()
    for name, parameter in bound.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda grad, name=name: None if grad is None else by_autograd.append(name))  # type: ignore[misc]

    def learn(experts: GroupedExperts) -> None:
        for times in (1, 3):
            hidden, weights = inputs()
            compute = partial(checkpoint, experts, use_reentrant=False) if checkpointing else experts
            (times * compute(hidden, CHOSEN, weights)).square().sum().backward()

    learn(plain)
    wanted = torch.cat([parameter.grad.flatten() for parameter in plain.parameters() if parameter.grad is not None])
    for _ in range(2):
        flat.clear_gradients()
        learn(bound)
        assert torch.equal(flat.gradients, wanted)
    assert by_autograd == []
    bound.zero_grad()
    learn(bound)
    assert torch.equal(flat.gradients, wanted)  # they are out of use
    assert len(by_autograd) == 2 * 6
    assert torch.equal(torch.cat([p.grad.flatten() for p in bound.parameters() if p.grad is not None]), wanted)


def test_in_sixteen_bits_it_is_the_same_up_to_their_rounding() -> None:
    experts = layer(TARGETS)
    hidden, weights = inputs()
    exact = experts(hidden, CHOSEN, weights)
    rounded = experts(hidden.bfloat16(), CHOSEN, weights.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_in_8_bit_floats_it_is_the_same_up_to_their_rounding_and_only_while_it_is_trained() -> None:
    experts = layer(TARGETS)
    exact = grouped(experts)
    experts.fp8 = True
    found = grouped(experts)
    for name, value in found.items():
        assert 1e-3 < (value - exact[name]).norm() / exact[name].norm() < 0.08, name
    experts.eval()
    same(grouped(experts), exact)


def test_in_8_bit_floats_an_adapter_has_more_of_them() -> None:
    """Three bits of mantissa are 4 % of a value; of the adapter's there are twice as many."""
    weight, ends = layer(TARGETS).down_proj, torch.tensor([4, 4, 9, 9, 20], dtype=torch.int32)
    rows = F.pad(torch.randn(20, 8), (32, 0))
    lora = torch.randn(5, 64, 8)
    exact = in_torch(rows, weight, lora, ends, False)
    assert (fp8_mm(rows, weight, lora, ends) - exact).norm() < 2e-3 * exact.norm()


def test_in_8_bit_floats_weights_of_zero_give_zero() -> None:
    weight = stack(torch.zeros(5, 64, 64), FLAT)
    out = fp8_mm(torch.randn(20, 72), weight, torch.zeros(5, 64, 8), torch.tensor([4, 4, 9, 9, 20], dtype=torch.int32))
    assert torch.equal(out, torch.zeros(20, 64))


def test_gradient_checkpointing_can_let_go_of_all_that_lives_between_the_passes() -> None:
    """It drops what autograd was given to save, and nothing else that grows with the tokens."""
    experts, saved = layer(TARGETS), list[tuple[int, ...]]()
    hidden, weights = inputs()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(tuple(t.shape)), t)[1], lambda t: t):
        out = experts(hidden, CHOSEN, weights)
    held = [value for value in vars(out.grad_fn).values() if isinstance(value, torch.Tensor | tuple | list)]
    assert held == []
    rows = CHOSEN.numel()
    assert {(rows, 2 * 32), (rows, 16), (rows, 8)} <= set(saved)  # gate and up, and what each stack's A made


def test_a_route_has_each_pair_once_in_the_order_of_experts() -> None:
    routing = route(CHOSEN, experts=5)
    expert_of_row = CHOSEN.flatten().sort().values
    starts = [0, *routing.ends.tolist()]
    for expert in range(5):
        own = slice(starts[expert], starts[expert + 1])
        assert (expert_of_row[own] == expert).all()
        assert sorted(routing.token_of_row[own].tolist()) == [t for t in range(TOKENS) if expert in CHOSEN[t]]
    assert starts[-1] == CHOSEN.numel()
    for token, rows in enumerate(routing.row_of_slot):
        assert (routing.token_of_row[rows] == token).all()
        assert (expert_of_row[rows] == CHOSEN[token]).all()
