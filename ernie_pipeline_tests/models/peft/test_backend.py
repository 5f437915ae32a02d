import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.audit import check_model, totals
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.peft.backend import PeftBackend, PeftModel4bit
from ernie_pipeline.models.quantize import quantize_linears
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import TARGETS, Lora, Quantization
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import LORA, QUANTIZATION, logits_of, new_adapted, new_base

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A saved adapter, and the logits that its model had in memory."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    model = PeftModel4bit(spec(), "cpu", new_adapted())
    model.save_adapter(folder)
    return folder, logits_of(model.module, IDS)


def spec(base: Path = BASE, adapter: Path | None = None, lora: Lora = LORA) -> ModelSpec:
    """The demo's base, or its copy at `base`, perhaps with an adapter."""
    checkpoint = BaseCheckpoint(name="demo", checkpoint=str(base))
    quantization = Quantization(**QUANTIZATION)
    return ModelSpec(backend="peft", base=checkpoint, quantization=quantization, lora=lora, adapter=adapter)


def refused(attempt: Callable[[], Any], expected: str) -> None:
    with pytest.raises(PipelineError, match=expected) as caught:
        attempt()
    assert "\n" not in str(caught.value)


def test_every_linear_layer_but_the_head_is_4_bit_and_the_audit_agrees(base: Any) -> None:
    from bitsandbytes.nn import Linear4bit

    linears = {name: module for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    four_bit = {name: module for name, module in linears.items() if isinstance(module, Linear4bit)}
    assert set(linears) - set(four_bit) == {"lm_head"}
    assert all(module.weight.bnb_quantized and module.weight.dtype == torch.uint8 for module in four_bit.values())
    assert not any(parameter.requires_grad for parameter in base.parameters())
    adapted = peft_backend.with_adapter(new_base(), LORA, seed=0)
    config = causal_lm_config(str(BASE), None)
    sums = totals(check_model(adapted, config, LORA, training=True))
    assert sums["modules"] == len(four_bit)
    assert sums["four_bit_parameters"] == sum(m.in_features * m.out_features for m in four_bit.values())
    adapters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sums["trainable_parameters"] == sums["lora_parameters"] == adapters


@pytest.mark.parametrize("change", [{}, {"type": "fp4"}, {"double": True}])
def test_each_4_bit_weight_computes_as_the_one_on_disk(change: dict[str, Any]) -> None:
    """Asked for the identity's image, because bitsandbytes may dequantize other weights than it quantized."""
    from bitsandbytes.nn import Linear4bit
    from safetensors.torch import load_file

    on_disk = load_file(BASE / "model.safetensors")
    quantization = QUANTIZATION | change
    model = peft_backend.load_base(str(BASE), None, quantization, "cpu")
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            assert (state.quant_type, state.nested) == (quantization["type"], quantization["double"])
            computed = module(torch.eye(module.in_features)).T.flatten()
            likeness = torch.cosine_similarity(computed, on_disk[f"{name}.weight"].float().flatten(), dim=0)
            assert likeness > (0.994 if quantization["type"] == "nf4" else 0.985), name


@pytest.mark.parametrize("inputs", [32, 64, 96, 160, 192, 416])
def test_a_layer_of_any_width_is_quantized_faithfully(inputs: int) -> None:
    model = OneLayer(inputs)
    weight = model.inner.weight.detach().clone()
    quantize_linears(model, QUANTIZATION, torch.device("cpu"))
    computed = (model.inner(torch.eye(inputs)) - model.inner.bias).T
    assert torch.cosine_similarity(computed.flatten(), weight.flatten(), dim=0) > 0.99


def test_a_width_that_cannot_be_quantized_faithfully_is_refused() -> None:
    refused(lambda: quantize_linears(OneLayer(48), QUANTIZATION, torch.device("cpu")), "48 inputs.* no multiple of 32")


class OneLayer(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(inputs, 64)

    def get_output_embeddings(self) -> None:
        return None


def test_a_bias_survives_quantization() -> None:
    model = OneLayer(64)
    bias = model.inner.bias.detach().clone()
    assert quantize_linears(model, QUANTIZATION, torch.device("cpu")) == 1
    torch.testing.assert_close(model.inner(torch.zeros(1, 64))[0], bias)


def test_a_saved_adapter_gives_the_same_logits_on_a_fresh_base(base: Any, adapter: tuple[Path, torch.Tensor]) -> None:
    folder, logits = adapter
    assert (logits_of(base, IDS) - logits).abs().max() > 0.05, "an adapter that changes nothing shows nothing"
    loaded = PeftBackend().load(spec(adapter=folder), "cpu")
    assert torch.equal(logits_of(loaded.module, IDS), logits)
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    with pytest.raises(PipelineError, match="not what the recipe asks for"):
        PeftBackend().load(spec(adapter=folder, lora=Lora(rank=8, alpha=8)), "cpu")


def test_the_adapters_bytes_depend_on_the_seed_and_not_on_the_place_of_the_base(
    tmp_path: Path, checkpoint: Path
) -> None:
    def saved(name: str, seed: int, base: Path) -> dict[str, bytes]:
        torch.manual_seed(os.getpid())
        model = PeftModel4bit(spec(base), "cpu", new_base(base))
        model.add_adapter(LORA, seed)
        model.save_adapter(tmp_path / name)
        return {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}

    first, again, other = saved("a", 1, BASE), saved("b", 1, checkpoint), saved("c", 2, BASE)
    assert sorted(first) == ["adapter_config.json", "adapter_model.safetensors"]
    assert first == again
    assert first["adapter_model.safetensors"] != other["adapter_model.safetensors"]
    assert not any(str(tmp_path).encode() in content for content in again.values())
    config = json.loads(first["adapter_config.json"])
    assert config["base_model_name_or_path"] == "demo"
    assert config["target_modules"] == sorted(TARGETS)  # PEFT holds a set, of another order in each process


def without_a_tensor(folder: Path) -> None:
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if "layers.3.mlp.shared" not in k})


def with_a_tensor_too_many(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors | {"base_model.model.model.layers.9.lora_A.weight": torch.zeros(4, 4)})


def of_another_rank(folder: Path) -> None:
    def shape(name: str, weight: torch.Tensor) -> tuple[int, int]:
        return (8, weight.shape[1]) if "lora_A" in name else (weight.shape[0], 8)

    rewrite(folder, lambda tensors: {name: torch.zeros(shape(name, weight)) for name, weight in tensors.items()})


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (without_a_tensor, "6 tensors did not find their place, among them .*shared_experts"),
        (with_a_tensor_too_many, r"1 tensors did not find their place, among them .*layers\.9"),
        (of_another_rank, "cannot be loaded .*size mismatch for .*q_proj"),
        (lambda folder: os.truncate(folder / "adapter_model.safetensors", 1000), "cannot be loaded"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "cannot be loaded"),
    ],
)
def test_a_damaged_adapter_is_refused(
    tmp_path: Path, adapter: tuple[Path, torch.Tensor], damage: Callable[[Path], None], expected: str
) -> None:
    folder = Path(shutil.copytree(adapter[0], tmp_path / "adapter"))
    damage(folder)
    refused(lambda: peft_backend.load_adapter(new_base(), folder), rf"^adapter {re.escape(str(folder))}:? .*{expected}")


def test_a_model_that_is_no_causal_one_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(small).save_pretrained(tmp_path)
    refused(lambda: new_base(tmp_path), r"is not a causal language model \(model_type 'bert'.*set base_model\.name")


def test_a_checkpoint_without_a_configuration_is_refused(without: Callable[..., Path]) -> None:
    folder = without("config.json")
    refused(lambda: new_base(folder), r"no readable config\.json .*set base_model\.name")


def test_a_checkpoint_that_brings_its_own_code_is_refused_and_the_code_not_run(
    without: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to transformers' question whether to trust it
    folder, mark = without("config.json"), "ran"
    own = {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "own.py").write_text(f"open({str(folder / mark)!r}, 'w')\n")
    refused(lambda: new_base(folder), "no readable config")
    assert not (folder / mark).exists()


def test_truncated_weights_are_refused(checkpoint: Path) -> None:
    os.truncate(checkpoint / "model.safetensors", 10_000_000)
    refused(lambda: new_base(checkpoint), "its weights cannot be loaded")


def test_missing_weights_are_refused(without: Callable[..., Path]) -> None:
    folder = without("model.safetensors")
    refused(lambda: new_base(folder), "its weights cannot be loaded")


def test_weights_with_a_tensor_missing_are_refused(checkpoint: Path) -> None:
    """transformers would fill it with random numbers, and say so in a log line."""
    from safetensors.torch import load_file, save_file

    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.2.self_attn.q_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    refused(lambda: new_base(checkpoint), r"its weights cannot be loaded.*layers\.2\.self_attn\.q_proj")


def test_weights_of_another_shape_are_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"intermediate_size": 512}))
    refused(lambda: new_base(checkpoint), "its weights cannot be loaded")
