"""A layer's experts as one module: kept unpacked, made dense, and with an adapter as PEFT begins one."""

import math

import pytest
import torch

from ernie_pipeline.models.grouped.experts import TARGETS, GroupedExperts
from ernie_pipeline.models.grouped.padding_free import keep_unpacked
from ernie_pipeline_tests.models.grouped.demo import change, random_experts
from ernie_pipeline_tests.models.grouped.test_products import grouped, layer


def as_bits(experts: GroupedExperts) -> dict[str, bytes]:
    """Output and gradients."""
    return {name: value.contiguous().numpy().tobytes() for name, value in grouped(experts).items()}


@pytest.mark.parametrize("targets", [TARGETS, ("up_proj",), ("down_proj",), ()])
def test_kept_unpacked_gives_the_same_bits_before_and_after_the_adapter_changes(targets: tuple[str, ...]) -> None:
    experts = layer(targets)
    before = as_bits(experts)
    experts.keep_unpacked()
    kept = {fused: weight.data_ptr() for fused, weight in experts.kept.items()}
    assert set(kept) == {"gate_up_proj", "down_proj"}
    assert as_bits(experts) == as_bits(experts) == before

    with torch.no_grad():
        for name, parameter in experts.named_parameters():
            if "lora" in name:
                parameter.add_(0.1)
    after = as_bits(experts)
    assert {fused: weight.data_ptr() for fused, weight in experts.kept.items()} == kept
    experts.forget_unpacked()
    assert not experts.kept
    assert as_bits(experts) == after
    assert (after != before) == bool(targets)


def test_what_is_kept_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:

    from ernie_pipeline.models.grouped import products

    experts, unpacked = layer(TARGETS), list[object]()
    unpack = products.unpack
    monkeypatch.setattr(products, "unpack", lambda *args: (unpacked.append(args[0]), unpack(*args)))
    grouped(experts)
    assert len(unpacked) == 4  # each stack in each pass
    experts.keep_unpacked()
    unpacked.clear()
    grouped(experts)
    assert unpacked == []


def test_kept_unpacked_a_disabled_adapter_is_still_no_adapter() -> None:
    experts = layer(TARGETS)
    assert experts.adapter is not None
    adapted = as_bits(experts)
    experts.adapter.enable_adapters(False)
    bare = as_bits(experts)
    experts.adapter.enable_adapters(True)
    experts.keep_unpacked()
    experts.adapter.enable_adapters(False)
    assert as_bits(experts) == bare
    experts.adapter.enable_adapters(True)
    assert as_bits(experts) == adapted


def test_as_many_layers_are_kept_as_there_is_memory_for() -> None:
    layers = torch.nn.ModuleList(layer(TARGETS) for _ in range(3))
    one = layers[0].bytes_unpacked
    for spare, kept in ((2 * one, 2), (3 * one - 1, 2), (one - 1, 0), (10 * one, 3), (one, 1), (0, 0)):
        assert keep_unpacked(layers, spare) == kept
        assert [bool(own.kept) for own in layers] == [number < kept for number in range(3)]


@pytest.mark.parametrize("targets", [TARGETS, ("up_proj",), ("down_proj",), ()])
@pytest.mark.parametrize("rank", [4, 8, 11])
def test_the_bytes_that_keeping_takes_are_not_told_too_small(targets: tuple[str, ...], rank: int) -> None:
    """Told for 16 bits a value, which the weights have on CUDA; here they have 32."""
    experts = layer(targets, rank)
    told = experts.keep_unpacked()
    took = sum(weight.numel() * 2 for weight in experts.kept.values())
    assert took <= told <= 1.6 * took


def test_dense_weights_compute_as_the_adapted_layer() -> None:
    experts = layer(TARGETS)
    with torch.no_grad():
        gate_up, down = experts.dense()
    as_dense = random_experts()
    x, chosen, weights = torch.randn(4, 64), torch.tensor([[0], [1], [2], [4]]), torch.ones(4, 1)
    by_hand = []
    for row, expert in zip(x, chosen[:, 0], strict=True):
        gate, up = (gate_up[expert] @ row).chunk(2)
        by_hand.append(down[expert] @ (torch.nn.functional.silu(gate) * up))
    wanted = torch.stack(by_hand)
    with torch.no_grad():
        assert (experts(x, chosen, weights) - wanted).norm() < 1e-5 * wanted.norm()
        assert (as_dense(x, chosen, weights) - wanted).norm() > 0.05 * wanted.norm()
    assert experts.adapter is not None
    experts.adapter.enable_adapters(False)
    assert all(torch.equal(own, base) for own, base in zip(experts.dense(), as_dense.dense(), strict=True))


def test_an_adapter_begins_as_peft_begins_one() -> None:
    experts = random_experts()
    torch.manual_seed(0)
    experts.add_adapter(8, 16, TARGETS)
    adapter = experts.adapter
    assert adapter is not None
    for target, inputs in (("gate_proj", 64), ("up_proj", 64), ("down_proj", 32)):
        first, second = adapter.pairs()[target]
        linear = torch.nn.Linear(inputs, 8)
        torch.nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5))  # PEFT's
        assert first.abs().max() <= 1 / math.sqrt(inputs)
        assert first.std().item() == pytest.approx(linear.weight.std().item(), rel=0.1)
        assert not second.any()
        assert (first.dtype, second.dtype) == (torch.float32, torch.float32)
    change(adapter)
    assert all(b.any() for b in adapter.lora_B.values())
