"""Engine `unsloth` on a CPU: a job's model from its packed base, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped import backend as grouped_backend
from ernie_pipeline.models.grouped import lora_linear
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import FLAT, LORA, adapted_grouped, read_demo

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])
Job = dict[str, Any]


@pytest.fixture
def asked(quantized_short: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`packed_base` without Unsloth; with what it was asked for."""
    heard: list[Any] = []

    def packed_base(*args: Any) -> Path:
        heard.append(args)
        return quantized_short

    monkeypatch.setattr(unsloth_engine, "packed_base", packed_base)
    return heard


@pytest.fixture
def job(short_base: Any) -> Job:
    return {"base": short_base, "quantization": FLAT, "lora": LORA, "adapter": None, "gpu": {"bases": "there"}}


def refused(attempt: Callable[[], Any]) -> str:
    with pytest.raises(PipelineError) as told:
        attempt()
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_job_s_base_is_the_packed_one_and_passes_the_check(asked: list[Any], job: Job) -> None:
    model = grouped_backend.load(job, "cpu")
    assert asked == [(job["base"], FLAT, "there")]
    checkpoint = job["base"]["checkpoint"]
    wanted = logits_of(peft_backend.load_base(checkpoint, None, FLAT, "cpu"), IDS)
    assert (logits_of(model, IDS) - wanted).norm() < 1e-5 * wanted.norm()
    grouped_backend.load({name: value for name, value in job.items() if name != "gpu"}, "cpu")
    assert asked[1][2] is None


def test_a_job_s_adapter_is_loaded_and_held_against_the_recipe(asked: list[Any], job: Job, tmp_path: Path) -> None:
    model = adapted_grouped(grouped_backend.base_of(job, "cpu"))
    grouped_backend.save_adapter(model, tmp_path, "short", None)
    loaded = grouped_backend.load(job | {"adapter": str(tmp_path)}, "cpu")
    assert torch.equal(logits_of(loaded, IDS), logits_of(model.eval(), IDS))
    other = job | {"adapter": str(tmp_path), "lora": LORA | {"rank": 8}}
    with pytest.raises(PipelineError, match="not what the recipe asks for"):
        grouped_backend.load(other, "cpu")


def test_what_ends_an_answer_is_the_checkpoint_s(asked: list[Any], job: Job, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(job["base"]["checkpoint"], tmp_path / "base")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    job["base"] = job["base"] | {"checkpoint": str(folder)}
    assert grouped_backend.base_of(job, "cpu").generation_config.eos_token_id == [2, 7]
    (folder / "generation_config.json").unlink()
    assert grouped_backend.base_of(job, "cpu").generation_config.eos_token_id == 2  # its config.json's


def test_the_adapter_follows_from_the_seed_alone(quantized_short: Path, job: Job) -> None:
    def adapter(seed: int) -> torch.Tensor:
        base = read_demo(quantized_short, FLAT, Path(job["base"]["checkpoint"]))
        model = grouped_backend.with_adapter(base, LORA, seed)
        return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])

    first = adapter(0)
    assert torch.equal(first, adapter(0))
    assert not torch.equal(first, adapter(1))


def test_every_adapted_linear_layer_is_sped_up(
    quantized_short: Path, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    usual = lora_linear.lora_linears
    monkeypatch.setattr(lora_linear, "lora_linears", lambda x, layers: (calls.append(len(layers)), usual(x, layers))[1])

    def base() -> Any:
        return read_demo(quantized_short, FLAT, Path(job["base"]["checkpoint"]))

    fresh = grouped_backend.with_adapter(base(), LORA, seed=0)
    grouped_backend.save_adapter(fresh, tmp_path, "short", None)
    for model in (fresh, grouped_backend.load_adapter(base(), tmp_path)):
        calls.clear()
        logits_of(model, IDS)
        assert calls == [1] * 14  # of two layers' attention, the dense layer, and the shared experts


def test_a_model_of_another_type_is_refused_before_anything_is_packed(
    asked: list[Any], job: Job, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64})
    )
    job["base"] = {"name": "a llama", "checkpoint": str(tmp_path), "revision": None}
    assert refused(lambda: grouped_backend.base_of(job, "cpu")) == (
        'engine "unsloth" is for models of the type ernie4_5_moe, and a llama is a llama; set training.engine to "peft"'
    )
    assert asked == []


def test_dropout_is_refused(quantized_short: Path, job: Job) -> None:
    base = read_demo(quantized_short, FLAT, Path(job["base"]["checkpoint"]))
    told = refused(lambda: grouped_backend.with_adapter(base, LORA | {"dropout": 0.1}, seed=0))
    assert told == 'lora.dropout is not in engine "unsloth"; set it to 0, or training.engine to "peft"'
