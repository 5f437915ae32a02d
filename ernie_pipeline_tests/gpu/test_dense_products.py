"""Dense layers with their adapters on CUDA, at the real widths, against torch's operations in fp32."""

from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped.dense_ops import Norm
from ernie_pipeline.models.grouped.dense_products import Adapted, Rotary, augmented, lora_linears, lora_mlp
from ernie_pipeline_tests.models.grouped import dense

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
]

HIDDEN, INNER, HEAD = 2560, 3072, 128


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def layers_of(inputs: int, *outputs: int, rank: int) -> list[Adapted]:
    return [dense.layer(inputs, own, rank, 2.0 if place else 1.0, "cuda") for place, own in enumerate(outputs)]


def same(compute: Any, reference: Any, x: torch.Tensor, layers: list[Adapted]) -> None:
    """Up to bf16's rounding, the weights held dequantized or not; and twice the same bits."""
    wanted = dense.passes(reference, x, layers)
    found = dense.passes(compute, x, layers)
    assert dense.apart(found, wanted) < 1e-2
    assert all(torch.equal(value, found[name]) for name, value in dense.passes(compute, x, layers).items())


@pytest.mark.parametrize("rows", [37, 1024, 4500])
@pytest.mark.parametrize("rank", [16, 12])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_query_key_and_value(rows: int, rank: int, normed: bool, held: bool) -> None:
    layers, x = layers_of(HIDDEN, 2560, 512, 512, rank=rank), torch.randn(rows, HIDDEN, device="cuda").bfloat16()
    angles = torch.rand(rows, HEAD // 2, device="cuda") * 6
    norm = Norm(torch.rand(HIDDEN, device="cuda").bfloat16() + 0.5, 1e-5) if normed else None
    rotary = Rotary(angles.cos(), angles.sin(), HEAD, layers=2)
    if held:
        layers[0].weight.dequantized = augmented(layers, torch.bfloat16).values
    same(lambda x: lora_linears(x, layers, norm, rotary), lambda x: dense.linears(x, layers, norm, rotary), x, layers)


@pytest.mark.parametrize("rows", [37, 4500])
@pytest.mark.parametrize("rank", [16, 160])
def test_a_layer_alone(rows: int, rank: int) -> None:
    layers, x = layers_of(HIDDEN, HIDDEN, rank=rank), torch.randn(rows, HIDDEN, device="cuda").bfloat16()
    same(lambda x: lora_linears(x, layers), lambda x: dense.linears(x, layers), x, layers)


@pytest.mark.parametrize("rows", [37, 1024, 4500])
@pytest.mark.parametrize("held", [True, False])
def test_mlp(rows: int, held: bool) -> None:
    gate_up, down = layers_of(HIDDEN, INNER, INNER, rank=16), layers_of(INNER, HIDDEN, rank=16)
    x = torch.randn(rows, HIDDEN, device="cuda").bfloat16()
    if held:
        for group in (gate_up, down):
            group[0].weight.dequantized = augmented(group, torch.bfloat16).values
    same(lambda x: [lora_mlp(x, gate_up, down[0])], lambda x: dense.mlp(x, gate_up, down[0]), x, [*gate_up, *down])
