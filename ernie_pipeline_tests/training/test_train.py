"""One real training run of the demo model on a tiny split, and what it leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.evaluation.evaluate import completion_loss
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.checkpoint.tokenizer import token_ids
from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.training.train import train
from ernie_pipeline.utils.errors import PipelineError

MakeJob = Callable[..., Any]


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


def losses(out: Path, name: str) -> list[float]:
    return [entry[name] for entry in json.loads((out / "curve.json").read_text()) if name in entry]


def test_it_learns_reports_while_it_trains_and_saves_what_it_trained(make_job: MakeJob) -> None:
    job, heard = make_job(), list[dict[str, Any]]()
    train(job, lambda line, values: heard.append({"line": line, **values}))
    out = job.out

    training, validation = losses(out, "loss"), losses(out, "loss_objective")
    assert len(training) == 6
    assert len(validation) == 2
    assert validation[-1] < validation[0] < training[0]
    steps = [values["step"] for values in heard if "loss" in values]
    assert steps == [1, 2, 3, 4, 5, 6]  # each was heard, in its turn
    live = next(values for values in heard if values.get("step") == 5)
    told = {"tokens", "tokens_per_s", "seconds", "seconds_left", "estimated_end", "learning_rate", "max_steps"}
    assert told <= {*live}
    run = json.loads((out / "reports" / "run.json").read_text())
    assert run["backend"] == "peft"
    assert run["logit_change"] > 0
    assert (run["steps"], run["samples"], run["processes"], run["resumed_from"]) == (6, 48, 1, [])
    speed = json.loads((out / "reports" / "speed.json").read_text())
    assert [entry["step"] for entry in speed] == [1, 2, 3, 4, 5, 6]
    timeline = json.loads((out / "reports" / "timeline.json").read_text())
    marked = [name for _, _, name in timeline["parts"]]
    order = ["load the base model", "rows", "steps and validations", "first step", "validation after step 6"]
    order += ["save the adapter", "reload and compare"]
    assert [name for name in marked if name in order][-len(order) :] == order
    assert run["tokens"] > live["tokens"] > 1000
    assert run["trainable_parameters"] == run["lora_parameters"] > 0
    assert run["four_bit_parameters"] == run["base_parameters"]
    assert {file.name for file in (out / "adapter").iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}


def test_in_bf16_too_the_reloaded_adapter_gives_the_trained_one_s_logits(make_job: MakeJob) -> None:
    """The run checks it itself; autocast, which accelerate leaves on the model, once made the two differ."""
    job = make_job(
        quantization={"compute_dtype": "bfloat16", "double": True},
        training={"max_steps": 2, "optimizer": "adamw_8bit"},
        execution=ExecutionOverrides(gradient_checkpointing=True),
    )
    heard: list[str] = []
    train(job, lambda line, values: heard.append(line))
    assert heard[-1] == "adapter saved; reloaded from disk it gives the same logits"


def test_the_same_seed_gives_the_same_adapter_byte_for_byte_and_another_seed_does_not(
    make_job: MakeJob, short_base: Any
) -> None:
    adapters = {}
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        job = make_job(name, base=short_base, training={"seed": seed, "max_steps": 2})
        train(job, quiet)
        adapters[name] = (job.out / "adapter" / "adapter_model.safetensors").read_bytes()
    assert adapters["first"] == adapters["second"]
    assert adapters["first"] != adapters["other"]


def test_the_loss_counts_the_completion_alone_unless_told_otherwise(make_job: MakeJob, short_base: Any) -> None:
    """The prompt's text is strange to the base model, so a loss over all tokens differs from the completion's."""
    first = {}
    for only in (True, False):
        settings = {"completion_only_loss": only, "max_steps": 1, "learning_rate": 1e-9}
        job = make_job(f"only-{only}", base=short_base, training=settings)
        train(job, quiet)
        first[only] = losses(job.out, "loss_objective")[-1]
    assert first[True] == pytest.approx(expected_completion_loss(make_job("plain", base=short_base)), rel=1e-3)
    assert abs(first[False] - first[True]) > 0.1


def expected_completion_loss(job: Any) -> float:
    """The untrained model's loss on the evaluation rows, as an evaluation says it."""
    import pyarrow.parquet as pq

    rows, loaded = pq.read_table(job.split / "eval.parquet"), backend_named("peft").load(job.spec, "cpu")
    texts = (rows[f"{part}_text"].to_pylist() for part in ("prompt", "completion"))
    return completion_loss(loaded, *(token_ids(loaded.tokenizer, part) for part in texts))


def test_a_base_that_is_no_language_model_is_said_in_one_sentence(make_job: MakeJob, tmp_path: Path) -> None:
    from transformers import BertConfig

    from ernie_pipeline.demo import BASE

    folder = tmp_path / "bert"
    BertConfig(architectures=["BertModel"]).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / file).write_bytes((BASE / file).read_bytes())
    job = make_job(base=BaseCheckpoint(name="bert", checkpoint=str(folder)))
    with pytest.raises(PipelineError, match="is not a causal language model") as told:
        train(job, quiet)
    assert str(folder) in str(told.value)
    assert not list(job.out.iterdir())
