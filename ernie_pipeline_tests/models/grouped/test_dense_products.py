"""Dense layers with their adapters, a norm and a rotary embedding in them, against torch's operations one by one."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ernie_pipeline.models.grouped.dense_ops import Norm
from ernie_pipeline.models.grouped.dense_products import Adapted, Rotary, augmented, lora_linears, lora_mlp, rms_norm
from ernie_pipeline_tests.models.grouped import dense

ROWS, INPUTS = 11, 64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def three() -> list[Adapted]:
    """Of other widths, ranks and scales."""
    return [dense.layer(INPUTS, *rest, device="cpu") for rest in ((96, 4, 3.0), (32, 8, 1.0), (48, 3, 0.5))]


def gate_up_down() -> tuple[list[Adapted], Adapted]:
    return [dense.layer(INPUTS, 96, 4, 2.0, "cpu") for _ in range(2)], dense.layer(96, INPUTS, 12, 1.0, "cpu")


def norm_and_rotary() -> tuple[Norm, Rotary]:
    angles = torch.rand(ROWS, 8) * 6
    return Norm(torch.rand(INPUTS) + 0.5, 1e-2), Rotary(angles.cos(), angles.sin(), size=16, layers=2)


def kept(compute: Any) -> list[int]:
    """The sizes of what is saved for the backward pass."""
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        compute()
    return sizes


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("rotated", [True, False])
def test_linears_and_their_gradients(normed: bool, rotated: bool) -> None:
    layers, x = three(), torch.randn(ROWS, INPUTS)
    norm, rotary = norm_and_rotary()
    own = norm if normed else None, rotary if rotated else None
    wanted = dense.passes(lambda x: dense.linears(x, layers, *own), x, layers)
    found = dense.passes(lambda x: lora_linears(x, layers, *own), x, layers)
    assert dense.apart(found, wanted) < 1e-5


def test_one_layer_alone() -> None:
    layers, x = three()[:1], torch.randn(ROWS, INPUTS)
    wanted = dense.passes(lambda x: dense.linears(x, layers), x, layers)
    assert dense.apart(dense.passes(lambda x: lora_linears(x, layers), x, layers), wanted) < 1e-5


def test_mlp_and_its_gradients() -> None:
    (gate_up, down), x = gate_up_down(), torch.randn(ROWS, INPUTS)
    wanted = dense.passes(lambda x: dense.mlp(x, gate_up, down), x, [*gate_up, down])
    found = dense.passes(lambda x: [lora_mlp(x, gate_up, down)], x, [*gate_up, down])
    assert dense.apart(found, wanted) < 1e-5


@pytest.mark.parametrize("added", [True, False])
def test_norm_and_its_gradient(added: bool) -> None:
    """With what is added to its input, and where that is not used."""
    (norm, _), x = norm_and_rotary(), torch.randn(ROWS, INPUTS)
    wanted = dense.passes(lambda x: [x * added, F.rms_norm(x, x.shape[-1:], *norm)], x, [])
    found = dense.passes(lambda x: (lambda y, x: [x * added, y])(*rms_norm(x, norm)), x, [])
    if not added:
        assert not wanted.pop("output 0").any()
        assert not found.pop("output 0").any()
    assert dense.apart(found, wanted) < 1e-5


def test_in_sixteen_bits_it_is_that_up_to_rounding_and_the_adapter_s_gradients_are_fp32() -> None:
    (gate_up, down), x = gate_up_down(), torch.randn(ROWS, INPUTS).bfloat16()
    wanted = dense.passes(lambda x: dense.mlp(x, gate_up, down), x, [*gate_up, down])
    found = dense.passes(lambda x: [lora_mlp(x, gate_up, down)], x, [*gate_up, down])
    assert dense.apart(found, wanted) < 1e-2
    assert found["output 0"].dtype == found["gradient 0"].dtype == torch.bfloat16
    assert found["gradient 1"].dtype == torch.float32


def test_no_normalized_rows_and_no_activation_are_kept() -> None:
    layers, (norm, rotary), x = three(), norm_and_rotary(), torch.randn(ROWS, INPUTS, requires_grad=True)
    assert kept(lambda: lora_linears(x, layers, norm, rotary)) == [ROWS * INPUTS, ROWS * 24]
    gate_up, down = gate_up_down()
    assert kept(lambda: lora_mlp(x, gate_up, down)) == [ROWS * n for n in (INPUTS, 2 * 96, 16, 16)]


def test_held_dequantized_a_changed_adapter_is_seen_and_every_bit_is_the_same() -> None:
    layers, x = three(), torch.randn(ROWS, INPUTS)
    norm, rotary = norm_and_rotary()

    def found() -> dense.Passes:
        return dense.passes(lambda x: lora_linears(x, layers, norm, rotary), x, layers)

    first = found()
    with torch.no_grad():
        for _, a, b, _ in layers:
            a.mul_(1.5)
            b.mul_(-0.5)
    changed = found()
    assert not torch.equal(changed["output 0"], first["output 0"])
    layers[0].weight.dequantized = augmented(layers, torch.float32).values
    with torch.no_grad():
        for _, a, b, _ in layers:
            a.div_(1.5)
            b.mul_(-2)
    again = found()
    assert again.keys() == first.keys()
    assert all(torch.allclose(again[name], value, rtol=1e-5, atol=1e-5) for name, value in first.items())
    layers[0].weight.dequantized = None
    assert all(torch.equal(again[name], value) for name, value in found().items())


def test_values_beside_an_adapter_s_own_are_zero() -> None:
    layers = three()
    weight = augmented(layers, torch.float32)
    assert weight.values.shape == (96 + 32 + 48 + 24, INPUTS + 24)
    used = sum(len(a) * INPUTS for _, a, _, _ in layers), sum(math.prod(b.shape) for _, _, b, _ in layers)
    assert (weight.lora_A.count_nonzero().item(), weight.lora_B.count_nonzero().item()) == used
