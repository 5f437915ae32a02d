"""An adapted 4-bit linear layer as one function, against PEFT's own layer: output and gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from ernie_pipeline.engines.lora_linear import speed_up_adapters
from ernie_pipeline.engines.quantize import quantize_linears
from ernie_pipeline_tests.engines.grouped_demo import FLAT, NESTED, change


class Model(nn.Module):
    """Two layers, of which one gets an adapter."""

    def __init__(self, bias: bool):
        super().__init__()
        self.first, self.second = nn.Linear(64, 96, bias=bias), nn.Linear(96, 32, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]

    def get_output_embeddings(self) -> None:
        """It has none."""


def adapted(bias: bool = False, quantization: dict[str, Any] = FLAT, alpha: int = 12) -> Any:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = Model(bias)
    quantize_linears(model, quantization, torch.device("cpu"))
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=alpha, target_modules=["second"]), model)
    change(model)
    return model


def passes(model: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    out = model(x)
    (out * torch.sin(torch.arange(out.numel())).view_as(out)).sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {"output": out.detach(), "input": x.grad, **grads}  # type: ignore[dict-item]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("quantization", [FLAT, NESTED])
@pytest.mark.parametrize("alpha", [4, 12])
def test_output_and_gradients_are_peft_s(bias: bool, quantization: dict[str, Any], alpha: int) -> None:
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    wanted = passes(adapted(bias, quantization, alpha), x)
    model = adapted(bias, quantization, alpha)
    assert speed_up_adapters(model) == 1
    found = passes(model, x)
    assert found.keys() == wanted.keys()
    assert len(found) == 4
    for name, value in found.items():
        assert value.shape == wanted[name].shape
        assert (value - wanted[name]).norm() < 1e-5 * wanted[name].norm(), name


def test_it_is_what_computes_and_a_disabled_adapter_is_none() -> None:
    model, x = adapted(bias=True), torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    by_peft = model(x)
    speed_up_adapters(model)
    model.second.lora_A["default"].forward = None  # which PEFT's own forward would call
    assert torch.allclose(model(x), by_peft, atol=1e-5)
    model.second.enable_adapters(False)
    bare = model(x)
    assert torch.equal(bare, model.second.base_layer(torch.tanh(model.first(x))))
    assert (bare - by_peft).norm() > 0.05 * by_peft.norm()
    model.second.enable_adapters(True)
    assert torch.allclose(model(x), by_peft, atol=1e-5)


def test_in_sixteen_bits_it_answers_in_them_and_the_adapter_s_gradients_are_fp32() -> None:
    model = adapted()
    speed_up_adapters(model)
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))
    exact, rounded = model.second(x), model.second(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    rounded.sum().backward()
    assert model.second.lora_A["default"].weight.grad.dtype == torch.float32


def test_only_adapted_4_bit_layers_are_changed() -> None:
    model = adapted()
    model.second.base_layer = nn.Linear(96, 32)
    assert speed_up_adapters(model) == 0
    assert "forward" not in vars(model.second)
