"""GRPO as the job has it: the demo's base, its own grader, a handful of easy problems."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text
from ernie_pipeline.recipe.sections import Grpo
from ernie_pipeline.training.train import train
from ernie_pipeline.utils.errors import PipelineError


def write_easy_split(folder: Path) -> Path:
    """Ten sums, which the base solves and puts in a box now and then."""
    tokenizer, rows = load_tokenizer(str(BASE)), []
    for number in range(10):
        a, b = 11 + 3 * number, 25 + number
        question = f"State the final answer to the following arithmetic problem: {a} + {b} ="
        prompt = prompt_text(tokenizer, [{"role": "user", "content": INSTRUCTION + question}])
        rows.append({"row_id": f"{number:016x}", "answer": str(a + b), "prompt_text": prompt})
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


def test_a_few_steps_raise_the_reward_on_a_handful_of_easy_problems(
    make_job: Callable[..., Any], tmp_path: Path
) -> None:
    """All of those practised at each step: what rises is not the problems' ease."""
    training = {"method": "grpo", "samples_per_step": 48, "max_steps": 5, "eval_every": 5, "keep": "last"}
    job = make_job(
        training=training | {"lr_scheduler": "constant_with_warmup"},
        grpo=Grpo(group=6, max_new_tokens=16, eval_problems=2, max_draws=1),
    ).model_copy(update={"split": write_easy_split(tmp_path)})
    train(job, lambda line, values: None)
    curve = json.loads((job.out / "curve.json").read_text())
    rewards = [entry["reward"] for entry in curve if "reward" in entry]
    assert len(rewards) == 5
    assert fmean(rewards[3:]) > fmean(rewards[:2]) + 0.2
    run = json.loads((job.out / "reports" / "run.json").read_text())
    assert (run["method"], run["train_rows"], run["eval_rows"], run["kept_step"]) == ("grpo", 8, 2, 5)
    assert run["mismatch_kl"] < 1e-6
    assert run["routed_elsewhere"] < 0.002  # in fp32 sampler and trainer agree
    assert run["logit_change"] > 0
    assert 0 < run["sampling_s"] < run["seconds"]


def test_what_is_longer_than_the_model_s_context_is_told(make_job: Callable[..., Any], tmp_path: Path) -> None:
    training = {"method": "grpo", "samples_per_step": 8, "max_steps": 1}
    job = make_job(training=training, grpo=Grpo(group=4, max_new_tokens=2048, eval_problems=2))
    with pytest.raises(PipelineError, match=r"with grpo.max_new_tokens = 2048 that is more than the 2048 tokens of"):
        train(job.model_copy(update={"split": write_easy_split(tmp_path)}), lambda line, values: None)
