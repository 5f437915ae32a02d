"""Backend `unsloth` on the demo model, each time in a process of its own, as Unsloth patches the one that it is in."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.torchrun import command
from ernie_pipeline.recipe.execution import ExecutionOverrides

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
    pytest.mark.skipif(find_spec("unsloth") is None, reason="needs the package unsloth: the extra gpu"),
]

MakeJob = Callable[..., Any]

QUICK_START = """
import json, sys
from unsloth import FastModel

model, tokenizer = FastModel.from_pretrained(sys.argv[1], max_seq_length=2048, load_in_4bit=True)
FastModel.for_inference(model)
answers = []
for question in json.load(open(sys.argv[2])):
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False).to("cuda")
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    answers.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
json.dump(answers, open(sys.argv[3], "w"))
"""
"""The reference's, greedy."""

OURS = """
import json, sys
from pathlib import Path
from ernie_pipeline.models.unsloth.process import fast_model

fast_model()
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import prompt_text, token_ids
from ernie_pipeline.models.spec import ModelSpec

model = backend_named("unsloth").load(ModelSpec.model_validate_json(Path(sys.argv[1]).read_text()), "cuda")
questions = [[{"role": "user", "content": each}] for each in json.load(open(sys.argv[2]))]
prompts = token_ids(model.tokenizer, [prompt_text(model.tokenizer, each) for each in questions])
answers = model.generate(prompts, Sampling(max_new_tokens=24), rows=4).tokens
json.dump(model.tokenizer.batch_decode(answers, skip_special_tokens=True), open(sys.argv[3], "w"))
"""


@pytest.fixture
def unsloth_job(make_job: MakeJob) -> MakeJob:
    """A `TrainingJob` of the demo for this backend: 40 steps of 8 samples."""
    bf16 = {"compute_dtype": "bfloat16", "double": True}
    training = {"max_steps": 40, "eval_every": 20, "log_every": 10}

    def make(name: str = "out", learning_rate: float = 1e-3, **changes: Any) -> Any:
        settings = training | {"learning_rate": learning_rate}
        return make_job(name, backend="unsloth", quantization=bf16, training=settings, **changes)

    return make


def run(*arguments: object, folder: Path) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, check=True)


def trained(job: Any, folder: Path) -> dict[str, Any]:
    """Train it; the facts of the run."""
    subprocess.run(command(write_job(folder, "training", job), 1), cwd=folder, check=True)
    return dict(json.loads((job.out / "reports" / "run.json").read_text()))


def validation_losses(job: Any) -> list[float]:
    curve = json.loads((job.out / "curve.json").read_text())
    return [entry["loss_objective"] for entry in curve if "loss_objective" in entry]


def test_it_trains_is_reloaded_and_its_adapter_answers_in_the_quick_start(unsloth_job: MakeJob, tmp_path: Path) -> None:
    job = unsloth_job("trained", learning_rate=3e-3)
    facts = trained(job, tmp_path)
    assert facts["backend"] == "unsloth"
    assert facts["trainable_parameters"] == 238_976
    assert facts["four_bit_parameters"] == facts["base_parameters"]
    losses = validation_losses(job)
    assert losses[-1] < 0.8 * losses[0]
    assert not list(tmp_path.glob("*compiled*")), "Unsloth compiles into the working directory"

    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([f"Put the answer in a box. What is {a} + {2 * a}?" for a in range(11, 31)]))
    spec = tmp_path / "spec.json"
    spec.write_text(job.spec.model_copy(update={"adapter": job.out / "adapter"}).model_dump_json())
    run("-c", QUICK_START, job.out / "adapter", questions, tmp_path / "theirs.json", folder=tmp_path)
    run("-c", OURS, spec, questions, tmp_path / "ours.json", folder=tmp_path)
    theirs, ours = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("theirs", "ours"))
    # greedy ties are decided by rounding, which the width of a batch changes
    assert sum(a == b for a, b in zip(theirs, ours, strict=True)) >= 0.8 * len(ours)
    assert any("boxed" in answer for answer in ours)


def test_packed_and_checkpointed_it_ends_at_the_same_loss(unsloth_job: MakeJob, tmp_path: Path) -> None:
    padded = ExecutionOverrides(profile="80gb", packing=False)
    packed = ExecutionOverrides(profile="24gb", packing=True, micro_batch=8, gradient_checkpointing=True)
    jobs = [unsloth_job("padded", execution=padded), unsloth_job("packed", execution=packed)]
    facts = [trained(job, tmp_path) for job in jobs]
    assert [each["packing"] for each in facts] == [False, True]
    assert [each["gradient_checkpointing"] for each in facts] == [False, True]
    assert facts[1]["padding_share"] < facts[0]["padding_share"]
    assert validation_losses(jobs[1]) == pytest.approx(validation_losses(jobs[0]), rel=0.02, abs=0.01)


def test_killed_it_goes_on_to_the_loss_of_an_undisturbed_run(unsloth_job: MakeJob, tmp_path: Path) -> None:
    undisturbed = unsloth_job("undisturbed")
    trained(undisturbed, tmp_path)
    always = ExecutionOverrides(checkpoint_s=1e-9)
    job = unsloth_job("killed", checkpoints=tmp_path / "checkpoints", execution=always)
    alone = command(write_job(tmp_path, "training", job), 1)
    with subprocess.Popen(alone, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 30/"):
                os.kill(process.pid, signal.SIGKILL)
                break
    facts = trained(job, tmp_path)
    assert facts["resumed_from"]
    assert validation_losses(job)[-1] == pytest.approx(validation_losses(undisturbed)[-1], rel=0.01, abs=0.01)


def test_the_evaluation_measures_the_trained_adapter(
    unsloth_job: MakeJob, make_evaluation: MakeJob, tmp_path: Path
) -> None:
    job = unsloth_job("trained")
    trained(job, tmp_path)
    measured = make_evaluation(
        "measured", backend="unsloth", quantization={"compute_dtype": "bfloat16", "double": True}
    )
    spec = measured.spec.model_copy(update={"adapter": job.out / "adapter"})
    file = write_job(tmp_path, "evaluation", measured.model_copy(update={"spec": spec}))
    subprocess.run(command(file, 1), cwd=tmp_path, check=True)
    metrics = json.loads((measured.out / "metrics.json").read_text())
    assert metrics["loss_completion"] == pytest.approx(validation_losses(job)[-1], rel=0.02)


def test_the_demo_is_the_base_of_these_tests() -> None:
    """Its trainable parameters above are those of this checkpoint."""
    config = json.loads((BASE / "config.json").read_text())
    assert (config["num_hidden_layers"], config["moe_num_experts"], config["hidden_size"]) == (6, 8, 256)
