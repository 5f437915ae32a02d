"""Backend `peft` on a CUDA device: the same jobs as on the CPU, and the shapes of the real model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.training.job import TrainingJob
from ernie_pipeline.training.train import train

MakeJob = Callable[..., TrainingJob]
MakeEvaluation = Callable[..., EvaluationJob]

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
def test_it_trains_evaluates_and_reloads_on_the_gpu(
    make_job: MakeJob, make_evaluation: MakeEvaluation, compute_dtype: str
) -> None:
    quantization = {"compute_dtype": compute_dtype, "double": True}
    training = {"max_steps": 12, "eval_every": 6, "optimizer": "adamw_8bit", "completion_only_loss": True}
    checkpointing = ExecutionOverrides(gradient_checkpointing=True)
    job = make_job("trained", training=training, quantization=quantization, execution=checkpointing)
    train(job, quiet)
    run = json.loads((job.out / "reports" / "run.json").read_text())
    assert "NVIDIA" in run["device"]
    assert run["peak_gpu_gib"] > 0
    curve = json.loads((job.out / "curve.json").read_text())
    losses = [entry["loss_objective"] for entry in curve if "loss_objective" in entry]
    measured = make_evaluation("measured", quantization=quantization)
    measured = measured.model_copy(update={"spec": measured.spec.model_copy(update={"adapter": job.out / "adapter"})})
    evaluate(measured, quiet)
    metrics = json.loads((measured.out / "metrics.json").read_text())
    assert metrics["loss_completion"] == pytest.approx(losses[-1], rel=0.05)


def test_cpu_and_gpu_agree_on_the_same_adapter(make_job: MakeJob, tmp_path: Path) -> None:
    spec = make_job().spec
    fresh = PeftBackend().load(spec, "cpu")
    fresh.add_adapter(spec.lora, seed=0)
    for name, parameter in fresh.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    fresh.save_adapter(tmp_path / "adapter")
    spec = spec.model_copy(update={"adapter": tmp_path / "adapter"})
    tokens = [*range(5, 45)]
    on_cpu, on_gpu = (PeftBackend().load(spec, device).logits(tokens) for device in ("cpu", "cuda"))
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

    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / file, tmp_path)
    base = BaseCheckpoint(name="random", checkpoint=str(tmp_path))
    adapted = PeftBackend().load(ModelSpec(backend="peft", base=base, quantization=Quantization()), "cuda")
    adapted.add_adapter(Lora(), seed=0)
    routed = sum(row.lora_parameters for row in adapted.audit(training=True) if row.part == "routed")
    assert routed == 64 * 3 * 16 * (2560 + 1536)
    tokens = torch.randint(3, 100_000, (2, 64), device="cuda")
    module = adapted.module.train()
    module(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    with_gradient = [p for p in module.parameters() if p.requires_grad and p.grad is not None]
    assert all(torch.isfinite(p.grad).all() for p in with_gradient if p.grad is not None)
    assert len(with_gradient) > 0.5 * sum(p.requires_grad for p in module.parameters())
