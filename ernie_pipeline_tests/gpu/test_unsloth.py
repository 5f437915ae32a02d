"""Engine `unsloth` on the demo model: packed by Unsloth, trained, killed, evaluated, loaded by the other engine."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from ernie_pipeline.launch.untyped import UntypedJob
from ernie_pipeline.training.recorded import BUCKET, RecordedPasses
from ernie_pipeline.training.schedule.micro_batches import Document, lay_end_to_end

from ernie_pipeline.demo import BASE
from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.models.audit import totals
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
from ernie_pipeline.models.generation.generate import generate_tokens
from ernie_pipeline.models.generation.memory_plan import WORKING_BYTES, row_bytes
from ernie_pipeline.models.generation.merged import fast_generator, merge, merged_weights
from ernie_pipeline.models.grouped import grouped_mm
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.training.train import train
from ernie_pipeline_tests.gpu.answers import NEW_TOKENS, assert_same_but_for_ties, transformers_answers
from ernie_pipeline_tests.models.conftest import logits_of

MakeJob = Callable[..., dict[str, Any]]
BF16 = Quantization().model_dump(mode="json")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
    pytest.mark.skipif(find_spec("unsloth") is None, reason="needs the package unsloth: the extra gpu"),
]


@pytest.fixture(autouse=True)
def as_usual() -> None:
    """A CPU training in the same session asks for deterministic algorithms, which not all CUDA kernels are; and a job
    with a memory limit leaves it to the process."""
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the demo's base is packed, once."""
    return str(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def unsloth_job(make_job: MakeJob, bases: str) -> MakeJob:
    """A job of the demo for this engine: 40 steps of 8 samples."""

    def make(name: str = "out", **changes: Any) -> dict[str, Any]:
        job = make_job(name, engine="unsloth", quantization=BF16, **changes)
        job["base"]["version"] = "the demo's"
        job["gpu"]["bases"] = bases
        job["training"] |= {"max_steps": 40, "eval_every": 20, "log_every": 10, "gradient_checkpointing": False}
        return job

    return make


@pytest.fixture
def adapted(unsloth_job: MakeJob) -> Any:
    """The demo with an adapter that changes its logits."""
    from ernie_pipeline.models.grouped import backend as grouped_backend

    job = unsloth_job("adapted")
    model = grouped_backend.with_adapter(grouped_backend.base_of(job, "cuda"), job["lora"], seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.train()


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


def documents(*lengths: int) -> list[Document]:
    made = [torch.randint(5, 700, (length,), generator=torch.Generator().manual_seed(length)) for length in lengths]
    return [Document(ids, ids.clone()) for ids in made]


def last_losses(job: dict[str, Any]) -> list[float]:
    curve = json.loads((Path(job["out"]) / "curve.json").read_text())
    return [entry["eval_loss"] for entry in curve if "eval_loss" in entry]


def test_it_trains_evaluates_reloads_and_its_adapter_is_the_other_engine_s_too(unsloth_job: MakeJob) -> None:
    job = unsloth_job("trained")
    job["training"]["optimizer"] = "adamw_8bit"
    train(job, quiet)
    out = Path(job["out"])
    run = json.loads((out / "reports" / "run.json").read_text())
    assert run["engine"] == "unsloth"
    parameters = json.loads((out / "parameters.json").read_text())
    assert totals(parameters)["trainable_parameters"] == 279_936
    assert totals(parameters)["four_bit_parameters"] == totals(parameters)["base_parameters"]
    losses = last_losses(job)
    assert losses[-1] < losses[0]

    measured = unsloth_job("measured", adapter=str(out / "adapter"))
    evaluate(measured, quiet)
    metrics = json.loads((Path(measured["out"]) / "metrics.json").read_text())
    # the evaluation's way is another one; bfloat16 itself moves this adapter's loss by 0.001, seen on a CPU beside fp32
    assert metrics["validation_loss"] == pytest.approx(losses[-1], rel=0.02, abs=2e-3)

    from ernie_pipeline.models.grouped import backend as grouped_backend

    tokens = torch.arange(5, 45)
    model = grouped_backend.load(measured, "cuda")
    here = logits_of(model, tokens)
    there = logits_of(peft_backend.load({**measured, "engine": "peft"}, "cuda"), tokens)
    with model.disable_adapter():
        change = here - logits_of(model, tokens)
    # their 4-bit constants are rounded in other groups (logits have differed by up to 5 % of their norm); that the file
    # is read exactly is tested on a CPU, where both engines can have the same constants
    assert (here - there).norm() < 0.25 * change.norm()


def without_torch_s_product(patch: pytest.MonkeyPatch) -> None:
    """As on a card for which torch has no grouped product that can be recorded."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("that card has no such product")

    patch.setattr(grouped_mm, "TORCH_CAPABILITIES", ())
    patch.setattr(grouped_mm, "torch_grouped_mm", refused)


def test_without_torch_s_product_it_ends_at_the_same_loss(
    unsloth_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, other = unsloth_job("usual"), unsloth_job("other")
    train(usual, quiet)
    without_torch_s_product(monkeypatch)
    train(other, quiet)
    assert last_losses(other) == pytest.approx(last_losses(usual), rel=0.01)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("own_product", [True, False])
def test_with_less_memory_some_experts_stay_in_4_bits_and_the_answers_are_those_of_generate(
    adapted: Any, prompts: list[str], share: float, own_product: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a cache for all rows and beside it `share` of what the experts take merged."""
    if own_product:
        without_torch_s_product(monkeypatch)
    weights, length, rows = merged_weights(adapted), 512, len(prompts)
    cache = rows * row_bytes(adapted.get_base_model().config, length, torch.bfloat16)
    free_memory()
    room = WORKING_BYTES + cache + weights.rest + share * sum(weights.experts.values())
    limit = torch.cuda.memory_allocated() + room + 2**16
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    model, kind = fast_generator(adapted.eval(), rows, length)
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert kind == f"4-bit experts in {5 - int(5 * share)} of 5 layers, CUDA graphs"

    ids = token_ids(load_tokenizer(str(BASE)), prompts)
    found = generate_tokens(model, ids, max_new_tokens=NEW_TOKENS, pad_token_id=0, end_tokens=[2], rows=2)
    plain = transformers_answers(model, prompts)
    assert_same_but_for_ties(merge(adapted), ids, found, plain)


def test_a_document_has_the_loss_in_a_batch_that_it_has_alone(adapted: Any) -> None:
    from ernie_pipeline.models.grouped.padding_free import padding_free_loss

    docs = documents(17, 40, 9, 33)

    def loss(batch: list[Document]) -> float:
        inputs = {name: value.cuda() for name, value in lay_end_to_end(batch, 0).items()}
        with torch.no_grad():
            return padding_free_loss(adapted.get_base_model(), inputs, max_seqlen=64).item()

    alone = [loss([document]) for document in docs]
    together = [loss(docs[: number + 1]) for number in range(len(docs))]
    assert together[-1] == pytest.approx(sum(alone), rel=5e-3)
    usual = 0.0
    for document in docs:
        with torch.no_grad():
            logits = adapted(input_ids=document.ids[None].cuda(), use_cache=False).logits[0].float()
        usual += torch.nn.functional.cross_entropy(logits[:-1], document.ids[1:].cuda(), reduction="sum").item()
    assert sum(alone) == pytest.approx(usual, rel=1e-2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_recorded_passes_leave_the_gradient_of_those_that_are_not(adapted: Any, checkpointing: bool) -> None:
    from ernie_pipeline.training.flat import FlatParameters

    from ernie_pipeline.models.grouped.padding_free import padding_free_loss

    if checkpointing:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    flat = FlatParameters([parameter for parameter in adapted.parameters() if parameter.requires_grad])

    def loss_of(inputs: dict[str, torch.Tensor], counted: torch.Tensor) -> torch.Tensor:
        return padding_free_loss(adapted.get_base_model(), inputs, max_seqlen=BUCKET) / counted

    passes = RecordedPasses(loss_of, documents=4, pad_id=0, largest=lambda most: 2 * BUCKET)
    counted = torch.tensor(95.0, device="cuda")
    gradients = []
    for batch in [documents(17, 40, 9, 33), documents(20, 30), documents(17, 40, 9, 33), documents(17, 40, 9, 33)]:
        if gradients:
            passes.begin()
        flat.clear_gradients()
        loss = passes(batch, counted)
        gradients.append((loss.item(), flat.gradients.clone()))
    assert list(passes.recordings) == [2 * BUCKET, BUCKET]
    first, other, *again = gradients
    assert other[0] != pytest.approx(first[0], rel=0.1)
    for loss, gradient in again:
        assert loss == pytest.approx(first[0], rel=1e-3)
        assert (gradient - first[1]).norm() < 1e-2 * first[1].norm()


def test_killed_it_goes_on_to_the_loss_of_an_undisturbed_run(unsloth_job: MakeJob, tmp_path: Path) -> None:
    undisturbed = unsloth_job("undisturbed")
    train(undisturbed, quiet)

    job = unsloth_job("killed", checkpoints=str(tmp_path / "checkpoints"))
    job["gpu"]["checkpoint_s"] = 1e-9
    job_file = write_job(tmp_path, "training", UntypedJob(job))
    alone = command(job_file, 1)
    with subprocess.Popen(alone, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 30/"):
                os.kill(process.pid, signal.SIGKILL)
                break
    lines: list[str] = []
    train(job, lambda line, values: lines.append(line))
    assert any(line.startswith("going on after step") for line in lines)
    assert last_losses(job)[-1] == pytest.approx(last_losses(undisturbed)[-1], rel=0.01)


def test_with_a_tight_limit_it_takes_fewer_samples_at_a_time(unsloth_job: MakeJob) -> None:
    lines: list[str] = []
    roomy, tight = unsloth_job("roomy"), unsloth_job("tight")
    for job in (roomy, tight):
        job["training"] |= {"max_steps": 4, "eval_every": 4, "batch_size": 64}
    free_memory()
    torch.cuda.reset_peak_memory_stats()
    standing = torch.cuda.memory_allocated()
    train(roomy, quiet)
    taken = torch.cuda.max_memory_reserved() - standing
    free_memory()
    tight["training"]["memory_limit_gib"] = (standing + 0.7 * taken) / 2**30
    train(tight, lambda line, values: lines.append(line))
    assert any("ran out of memory: it begins anew" in line for line in lines), lines
    assert last_losses(tight)[-1] == pytest.approx(last_losses(roomy)[-1], rel=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices, and this machine has fewer")
def test_two_gpus_end_at_the_loss_of_one(unsloth_job: MakeJob, tmp_path: Path) -> None:
    one, two = unsloth_job("one"), unsloth_job("two")
    one["training"] |= {"batch_size": 4, "accumulation": 2}  # the two ranks' shares, one after the other
    train(one, quiet)
    job_file = write_job(tmp_path, "training", UntypedJob(two))
    environment = {**os.environ, **surroundings(2, 60), "OMP_NUM_THREADS": "2"}
    subprocess.run(command(job_file, 2), env=environment, check=True)
    run = json.loads((Path(two["out"]) / "reports" / "run.json").read_text())
    assert (run["processes"], run["steps"], run["samples"]) == (2, 40, 320)
    assert last_losses(two) == pytest.approx(last_losses(one), rel=0.01)
