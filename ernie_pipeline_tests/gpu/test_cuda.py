"""Backend `peft` on a CUDA device: the same jobs as on the CPU, and the shapes of the real model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models.audit import totals
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.training.train import train

MakeJob = Callable[..., dict[str, Any]]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
]


@pytest.fixture(autouse=True)
def usual_kernels() -> None:
    """A CPU training in the same session asks for deterministic algorithms, which not all CUDA kernels are."""
    torch.use_deterministic_algorithms(False)


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_it_trains_evaluates_and_reloads_on_the_gpu(make_job: MakeJob, compute_dtype: str) -> None:
    quantization = Quantization(compute_dtype=compute_dtype).model_dump(mode="json")
    job = make_job("trained", quantization=quantization)
    job["training"] |= {"max_steps": 12, "eval_every": 6, "optimizer": "adamw_8bit", "gradient_checkpointing": True}
    train(job, quiet)
    out = Path(job["out"])
    run = json.loads((out / "reports" / "run.json").read_text())
    assert "NVIDIA" in run["device"]
    assert run["peak_gpu_gib"] > 0
    losses = [entry["eval_loss"] for entry in json.loads((out / "curve.json").read_text()) if "eval_loss" in entry]
    measured = make_job("measured", quantization=quantization, adapter=str(out / "adapter"))
    evaluate(measured, quiet)
    metrics = json.loads((Path(measured["out"]) / "metrics.json").read_text())
    assert metrics["validation_loss"] == pytest.approx(losses[-1], rel=0.05)


def test_cpu_and_gpu_agree_on_the_same_adapter(make_job: MakeJob) -> None:
    job = make_job()
    tokens = torch.arange(5, 45)
    on_cpu = logits_of(peft_backend.load(job, "cpu"), tokens)
    on_gpu = logits_of(peft_backend.load(job, "cuda"), tokens)
    assert (on_cpu - on_gpu).abs().max() < 1e-2 * on_cpu.abs().max()


def test_layers_of_the_real_model_s_size_are_4_bit_adapted_and_trainable(tmp_path: Path) -> None:
    """ERNIE-4.5-21B-A3B's widths and experts in 2 of its 28 layers (dense, and routed with shared), random weights."""
    from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

    with torch.device("cuda"):
        model = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(num_hidden_layers=2)).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name.endswith("mlp.gate.weight"):
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(tmp_path)
    del model
    torch.cuda.empty_cache()

    lora = Lora().model_dump(mode="json")
    base = peft_backend.load_base(str(tmp_path), None, Quantization().model_dump(mode="json"), "cuda")
    adapted = peft_backend.with_adapter(base, lora, seed=0)
    config = causal_lm_config(str(tmp_path), None)
    rows = peft_backend.check_model(adapted, config, lora, training=True)
    routed = sum(row["lora_parameters"] for row in rows if row["part"] == "routed")
    assert routed == 64 * 3 * 16 * (2560 + 1536)
    tokens = torch.randint(3, 100_000, (2, 64), device="cuda")
    adapted(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    with_gradient = [p for p in adapted.parameters() if p.requires_grad and p.grad is not None]
    assert all(torch.isfinite(p.grad).all() for p in with_gradient if p.grad is not None)
    assert len(with_gradient) > 0.5 * sum(p.requires_grad for p in adapted.parameters())
