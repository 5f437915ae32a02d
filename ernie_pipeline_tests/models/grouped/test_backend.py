"""Backend `grouped` on a CPU: a model from its quantized base, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped import lora_linear
from ernie_pipeline.models.grouped.backend import GroupedBackend, GroupedModel, read_base
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import PROFILES
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import FLAT, LORA, change, read_demo

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])


@pytest.fixture
def asked(quantized_short: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`quantized_base` with what it would make at hand; and what it was asked for."""
    heard: list[Any] = []

    def quantized_base(base: Any, config: Any, *rest: Any) -> Path:
        heard.append((base, config.model_type, *rest))
        return quantized_short

    monkeypatch.setattr("ernie_pipeline.models.grouped.quantized_base.quantized_base", quantized_base)
    return heard


@pytest.fixture
def spec(short_spec: ModelSpec) -> ModelSpec:
    """Two layers of the demo, of this backend."""
    return short_spec.model_copy(update={"backend": "grouped", "quantized_bases": Path("there")})


def refused(attempt: Callable[[], Any]) -> str:
    with pytest.raises(PipelineError) as told:
        attempt()
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_spec_s_base_is_the_quantized_one_and_passes_the_check(asked: list[Any], spec: ModelSpec) -> None:
    model = GroupedBackend().load(spec, "cpu")
    [(base, model_type, quantization, bases, device, meanwhile)] = asked
    assert (base, model_type) == (spec.base, "ernie4_5_moe")
    assert quantization == spec.quantization.model_dump(mode="json") == {"bits": 4, **FLAT}
    assert (bases, device, meanwhile) == (Path("there"), "cpu", None)
    wanted = logits_of(peft_backend.load_base(spec.base.checkpoint, None, FLAT, "cpu"), IDS)
    assert (logits_of(model.module, IDS) - wanted).norm() < 1e-5 * wanted.norm()
    GroupedBackend().load(spec.model_copy(update={"quantized_bases": None}), "cpu")
    assert asked[1][3] is None


def test_a_spec_s_adapter_is_loaded_and_held_against_the_recipe(
    asked: list[Any], spec: ModelSpec, tmp_path: Path
) -> None:
    model = GroupedBackend().load(spec, "cpu")
    model.add_adapter(LORA, seed=0)
    change(model.module)
    model.save_adapter(tmp_path)
    with_adapter = spec.model_copy(update={"adapter": tmp_path})
    loaded = GroupedBackend().load(with_adapter, "cpu")
    assert torch.equal(logits_of(loaded.module, IDS), logits_of(model.module.eval(), IDS))
    with pytest.raises(PipelineError, match="not what the recipe asks for"):
        GroupedBackend().load(with_adapter.model_copy(update={"lora": Lora(rank=8, alpha=8)}), "cpu")


def test_what_ends_an_answer_is_the_checkpoint_s(asked: list[Any], spec: ModelSpec, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(spec.base.checkpoint, tmp_path / "base"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    spec = spec.model_copy(update={"base": spec.base.model_copy(update={"checkpoint": str(folder)})})
    assert GroupedBackend().load(spec, "cpu").end_tokens == [2, 7]
    (folder / "generation_config.json").unlink()
    assert read_base(spec, "cpu").generation_config.eos_token_id == 2  # its config.json's


def test_the_adapter_follows_from_the_seed_alone(quantized_short: Path, spec: ModelSpec) -> None:
    def adapter(seed: int) -> torch.Tensor:
        model = GroupedModel(spec, "cpu", read_demo(quantized_short, FLAT, Path(spec.base.checkpoint)))
        model.add_adapter(LORA, seed)
        return torch.cat([parameter.detach().flatten() for parameter in model.trainable().values()])

    first = adapter(0)
    assert torch.equal(first, adapter(0))
    assert not torch.equal(first, adapter(1))


def test_every_adapted_linear_layer_is_sped_up(
    quantized_short: Path, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    usual = lora_linear.lora_linears

    def lora_linears(x: torch.Tensor, layers: Any, *rest: Any) -> Any:
        calls.append(len(layers))
        return usual(x, layers, *rest)

    monkeypatch.setattr(lora_linear, "lora_linears", lora_linears)

    def base() -> GroupedModel:
        return GroupedModel(spec, "cpu", read_demo(quantized_short, FLAT, Path(spec.base.checkpoint)))

    fresh, loaded = base(), base()
    fresh.add_adapter(LORA, seed=0)
    fresh.save_adapter(tmp_path)
    loaded.read_adapter(tmp_path)
    for model in (fresh, loaded):
        calls.clear()
        logits_of(model.module, IDS)
        assert calls == [1] * 14  # of two layers' attention, the dense layer, and the shared experts


def test_a_model_of_another_type_is_refused_before_anything_is_quantized(
    asked: list[Any], spec: ModelSpec, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64})
    )
    base = BaseCheckpoint(name="a llama", checkpoint=str(tmp_path))
    assert refused(lambda: GroupedBackend().load(spec.model_copy(update={"base": base}), "cpu")) == (
        'backend "grouped" is for models of the type ernie4_5_moe, and a llama is a llama; '
        'set training.backend to "unsloth" or "peft"'
    )
    assert asked == []


def test_8_bit_products_are_refused_where_they_cannot_be(
    quantized_short: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GroupedModel(spec, "cpu", read_demo(quantized_short, FLAT, Path(spec.base.checkpoint)))
    model.add_adapter(Lora(rank=4, alpha=8), seed=0)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    told = refused(lambda: model.training(PROFILES["cpu"], [[20]], fp8=True))
    assert told == (
        "training.fp8 = true needs a Hopper GPU (compute capability 9.0), and this one's is 8.0; set it to false"
    )


def test_what_8_bit_products_look_up_once_is_there_before_a_pass_is_captured(
    quantized_short: Path, spec: ModelSpec
) -> None:
    model = GroupedModel(spec, "cpu", read_demo(quantized_short, FLAT, Path(spec.base.checkpoint)))
    model.add_adapter(Lora(rank=4, alpha=8), seed=0)
    model.training(PROFILES["cpu"], [[20]], fp8=True)
    layers = [module for module in model.base.modules() if isinstance(module, GroupedExperts)]
    assert layers
    assert all(hasattr(stack, "largest") for own in layers for stack in (own.gate_up_proj, own.down_proj))


def test_dropout_is_refused(quantized_short: Path, spec: ModelSpec) -> None:
    model = GroupedModel(spec, "cpu", read_demo(quantized_short, FLAT, Path(spec.base.checkpoint)))
    told = refused(lambda: model.add_adapter(Lora(rank=4, alpha=8, dropout=0.1), seed=0))
    assert told == 'lora.dropout is not in backend "grouped"; set it to 0, or training.backend to "peft" or "unsloth"'
