"""A layer's experts as one module: held dequantized, made dense, and with an adapter as PEFT begins one."""

import math
from types import SimpleNamespace

import pytest
import torch

from ernie_pipeline.models.grouped.experts import TARGETS, GroupedExperts
from ernie_pipeline.models.grouped.padding_free import keep_dequantized
from ernie_pipeline_tests.models.grouped.demo import change, random_experts
from ernie_pipeline_tests.models.grouped.test_products import grouped, layer


def as_bits(experts: GroupedExperts) -> dict[str, bytes]:
    """Output and gradients."""
    return {name: value.contiguous().numpy().tobytes() for name, value in grouped(experts).items()}


@pytest.mark.parametrize("targets", [TARGETS, ("up_proj",), ("down_proj",), ()])
def test_held_dequantized_it_gives_the_same_bits_before_and_after_the_adapter_changes(targets: tuple[str, ...]) -> None:
    experts = layer(targets)
    before = as_bits(experts)
    experts.keep_dequantized()
    held = {fused: weight.data_ptr() for fused, weight in experts.dequantized.items()}
    assert set(held) == {"gate_up_proj", "down_proj"}
    assert as_bits(experts) == as_bits(experts) == before

    with torch.no_grad():
        for name, parameter in experts.named_parameters():
            if "lora" in name:
                parameter.add_(0.1)
    after = as_bits(experts)
    assert {fused: weight.data_ptr() for fused, weight in experts.dequantized.items()} == held
    experts.drop_dequantized()
    assert not experts.dequantized
    assert as_bits(experts) == after
    assert (after != before) == bool(targets)


def test_what_is_held_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:

    from ernie_pipeline.models.grouped import products

    experts, calls = layer(TARGETS), list[object]()
    dequantize = products.dequantize
    monkeypatch.setattr(products, "dequantize", lambda *args: (calls.append(args[0]), dequantize(*args)))
    grouped(experts)
    assert len(calls) == 4  # each stack in each pass
    experts.keep_dequantized()
    calls.clear()
    grouped(experts)
    assert calls == []


def test_held_dequantized_a_disabled_adapter_is_still_no_adapter() -> None:
    experts = layer(TARGETS)
    assert experts.adapter is not None
    adapted = as_bits(experts)
    experts.adapter.enable_adapters(False)
    bare = as_bits(experts)
    experts.adapter.enable_adapters(True)
    experts.keep_dequantized()
    experts.adapter.enable_adapters(False)
    assert as_bits(experts) == bare
    experts.adapter.enable_adapters(True)
    assert as_bits(experts) == adapted


def test_as_many_layers_are_held_dequantized_as_there_is_memory_for() -> None:
    layers = torch.nn.ModuleList(layer(TARGETS) for _ in range(3))
    layers.config = SimpleNamespace(moe_k=2)
    one = layers[0].dequantized_bytes
    for spare, held in ((2 * one, 2), (3 * one - 1, 2), (one - 1, 0), (10 * one, 3), (one, 1), (0, 0)):
        assert keep_dequantized(layers, spare, tokens=8192) == (0, held)
        assert [bool(own.dequantized) for own in layers] == [number < held for number in range(3)]


@pytest.mark.parametrize("targets", [TARGETS, ("up_proj",), ("down_proj",), ()])
@pytest.mark.parametrize("rank", [4, 8, 11])
def test_the_bytes_that_holding_takes_are_not_reckoned_too_small(targets: tuple[str, ...], rank: int) -> None:
    """Reckoned for 16 bits a value, which the weights have on CUDA; here they have 32."""
    experts = layer(targets, rank)
    reckoned = experts.keep_dequantized()
    took = sum(weight.numel() * 2 for weight in experts.dequantized.values())
    assert took <= reckoned <= 1.6 * took


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
        lora_A, lora_B = adapter.pairs()[target]
        linear = torch.nn.Linear(inputs, 8)
        torch.nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5))  # PEFT's
        assert lora_A.abs().max() <= 1 / math.sqrt(inputs)
        assert lora_A.std().item() == pytest.approx(linear.weight.std().item(), rel=0.1)
        assert not lora_B.any()
        assert (lora_A.dtype, lora_B.dtype) == (torch.float32, torch.float32)
    change(adapter)
    assert all(b.any() for b in adapter.lora_B.values())
