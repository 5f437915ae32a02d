from typing import Any

import pytest
import torch

from ernie_pipeline.models.generation.quantized_experts import even_first, quantized_experts
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline_tests.models.grouped.demo import FLAT, NESTED, change, stack

EXPERTS, HIDDEN, INNER = 4, 128, 64
TARGETS = ("gate_proj", "up_proj", "down_proj")


def grouped(quantization: dict[str, Any] = NESTED, inner: int = INNER) -> GroupedExperts:
    weights = torch.randn(EXPERTS, 2 * inner, HIDDEN), torch.randn(EXPERTS, HIDDEN, inner)
    return GroupedExperts(*(stack(weight, quantization) for weight in weights))


@pytest.mark.parametrize("targets", [TARGETS, ("up_proj",)])
@pytest.mark.parametrize("rank", [3, 20])
def test_the_adapter_as_the_kernel_takes_it_is_what_the_adapter_adds(targets: tuple[str, ...], rank: int) -> None:
    module = grouped()
    base = module.dense()
    module.add_adapter(rank, 2 * rank, targets)
    change(module)
    taken = quantized_experts(module, torch.float32)
    assert taken is not None
    for before, after, target, own in zip(base, module.dense(), ("up_proj", "down_proj"), taken, strict=True):
        if target not in targets:
            assert own.lora is None
            continue
        lora_A, lora_B = own.lora
        parts = lora_A.shape[1] // lora_B.shape[2]
        factors = zip(lora_A.chunk(parts, 1), lora_B.chunk(parts, 1), strict=True)
        added = torch.cat([second @ first for first, second in factors], dim=1)
        torch.testing.assert_close(added, even_first(after - before), atol=1e-5, rtol=1e-4)
        assert added.abs().max() > 0.02


def test_a_switched_off_adapter_is_left_out() -> None:
    module = grouped()
    module.add_adapter(4, 8, TARGETS)
    assert module.adapter is not None
    module.adapter.enable_adapters(False)
    taken = quantized_experts(module, torch.float32)
    assert taken is not None
    assert [stack.lora for stack in taken] == [None, None]


def test_what_is_held_otherwise_is_left_to_its_module() -> None:
    assert quantized_experts(grouped(FLAT), torch.float32) is None, "the constants are not quantized"
    assert quantized_experts(grouped(inner=96), torch.float32) is None, "blocks of 32"
    assert quantized_experts(torch.nn.Identity(), torch.float32) is None
