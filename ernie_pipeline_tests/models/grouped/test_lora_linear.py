"""Adapted 4-bit linear layers as one function, against PEFT's own layers: output and gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from ernie_pipeline.models.grouped import dense_products, lora_linear
from ernie_pipeline.models.grouped.lora_linear import project, speed_up_adapters
from ernie_pipeline.models.quantize import quantize_linears
from ernie_pipeline_tests.models.grouped.demo import FLAT, NESTED, change


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


# Several layers of one input


class Together(nn.Module):
    """Three layers of other widths that read one input."""

    def __init__(self, bias: bool):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, outputs, bias=bias) for outputs in (96, 32, 48))

    def get_output_embeddings(self) -> None:
        """It has none."""


def together(bias: bool = False, targets: tuple[str, ...] = ("q", "k", "v"), fast: bool = True) -> Any:
    """With adapters of other ranks and scales."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = Together(bias)
    quantize_linears(model, FLAT, torch.device("cpu"))
    model.requires_grad_(False)
    ranks, alphas = {"q": 4, "k": 8, "v": 3}, {"q": 12, "k": 8, "v": 3}
    config = LoraConfig(target_modules=list(targets), rank_pattern=ranks, alpha_pattern=alphas)
    inject_adapter_in_model(config, model)
    change(model)
    if fast:
        assert speed_up_adapters(model) == len(targets)
    return model


def passes_together(model: Any, compute: Any, used: tuple[str, ...] = ("q", "k", "v")) -> dict[str, torch.Tensor]:
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    outs = dict(zip(("q", "k", "v"), compute(x, model.q, model.k, model.v), strict=True))
    weights = {name: torch.sin(torch.arange(out.numel()) + len(out.T)).view_as(out) for name, out in outs.items()}
    sum((outs[name] * weights[name]).sum() for name in used).backward()  # type: ignore[union-attr]
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad and n.split(".")[0] in used}
    found = {**{name: out.detach() for name, out in outs.items()}, "input": x.grad, **grads}
    return found  # type: ignore[return-value]


def one_by_one(x: torch.Tensor, *layers: Any) -> list[torch.Tensor]:
    return [layer(x) for layer in layers]


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each call computes together."""
    calls: list[int] = []
    usual = lora_linear.lora_linears
    monkeypatch.setattr(
        lora_linear, "lora_linears", lambda x, layers, *rest: (calls.append(len(layers)), usual(x, layers, *rest))[1]
    )
    return calls


@pytest.mark.parametrize("used", [("q", "k", "v"), ("v",), ("q", "k")])
def test_layers_that_read_one_input_give_together_what_peft_s_give_one_by_one(
    used: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = passes_together(together(fast=False), one_by_one, used)
    calls = count_calls(monkeypatch)
    found = passes_together(together(), project, used)
    assert calls == [3]
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert (value - wanted[name]).norm() < 1e-5 * wanted[name].norm(), name


@pytest.mark.parametrize("why", ["bias", "disabled", "not a target", "PEFT's"])
def test_where_one_is_another_kind_each_is_computed_by_itself(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {
        "bias": why == "bias",
        "targets": ("q", "v") if why == "not a target" else ("q", "k", "v"),
    }
    models = together(fast=False, **settings), together(fast=why != "PEFT's", **settings)
    for model in models:
        if why == "disabled":
            model.v.enable_adapters(False)
    used = ("q",) if why == "disabled" else ("q", "k", "v")
    wanted = passes_together(models[0], one_by_one, used)
    calls = count_calls(monkeypatch)
    found = passes_together(models[1], project, used)
    assert 3 not in calls
    for name, value in found.items():
        assert (value - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


def test_held_dequantized_nothing_is_dequantized_and_every_bit_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    model, dequantized = together(), list[torch.Size]()
    layers = [model.q, model.k, model.v]
    usual = dense_products.dequantize
    monkeypatch.setattr(
        dense_products, "dequantize", lambda weight, out: (dequantized.append(out.shape), usual(weight, out))
    )

    def bits() -> list[bytes]:
        own = x.clone().requires_grad_()
        outs = project(own, *layers)
        sum(out.square().sum() for out in outs).backward()
        assert own.grad is not None
        return [tensor.detach().numpy().tobytes() for tensor in (*outs, own.grad)]

    wanted = bits()
    assert len(dequantized) == 6
    lora_linear.keep_dequantized(layers)
    assert lora_linear.dequantized_bytes(layers) == 2 * (64 + 24) * (96 + 32 + 48 + 24)
    dequantized.clear()
    assert bits() == wanted
    assert dequantized == []
    assert torch.allclose(
        model.q(x), project(x, *layers)[0], atol=1e-5
    )  # alone it is not the group whose weights are held
    lora_linear.drop_dequantized(layers)
    assert bits() == wanted
