"""The same adapter through lm-evaluation-harness: its own loading, decoding and judging of the exported model."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.evaluation.suites.answer import answer
from ernie_pipeline.evaluation.suites.attempts import GREEDY, read_attempts
from ernie_pipeline.evaluation.suites.harness import main, write_task
from ernie_pipeline.evaluation.suites.job import SuiteJob
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.registry.export.export import Asked, export_source
from ernie_pipeline.registry.export.source import Source

PROBLEMS = 60
TOKENS = 24
SAME = 0.9
"""Of the problems, those that both judge alike: the export is in bf16, so a few answers may be others."""


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason='needs lm-evaluation-harness: pip install ".[harness]"'
)
def test_the_harness_agrees_on_the_same_adapter(make_suite_job: Callable[..., SuiteJob], tmp_path: Path) -> None:
    job = make_suite_job(count=PROBLEMS, answers={"max_new_tokens": TOKENS, "samples": 0})
    model = PeftBackend().load(job.spec, "cpu")
    model.add_adapter(job.spec.lora, seed=0)
    torch.manual_seed(1)
    for name, parameter in model.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    model.save_adapter(tmp_path / "adapter")
    spec = job.spec.model_copy(update={"adapter": tmp_path / "adapter"})
    answer(job.model_copy(update={"spec": spec}), quiet)
    ours = json.loads((job.out / "metrics.json").read_text())["greedy_strict"]

    (tmp_path / "scratch").mkdir()
    source = Source("models:/test/1", spec, INSTRUCTION, TOKENS, "", "made for a test")
    export_source(source, Asked("merged", tmp_path / "merged"), tmp_path / "scratch", lambda line: None)
    write_task(job.problems, "mine", TOKENS, tmp_path / "task")
    theirs = harness_judges(tmp_path / "merged", tmp_path / "task")

    print("FOUND", ours, sum(theirs.values()) / len(theirs))
    assert 0.1 < ours["value"] < 0.9
    assert ours["low"] <= sum(theirs.values()) / len(theirs) <= ours["high"]
    by_us = {each.row_id: each.strict for each in read_attempts(job.out) if each.sample == GREEDY}
    assert theirs.keys() == by_us.keys()
    assert sum(theirs[row_id] == by_us[row_id] for row_id in by_us) >= SAME * PROBLEMS


def harness_judges(model: Path, task: Path) -> dict[str, bool]:
    """Whether the answer to each problem is right, by row id."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=PROBLEMS)
    tasks = TaskManager(include_path=str(task), include_defaults=False)
    found = simple_evaluate(model=loaded, tasks=["mine"], task_manager=tasks, bootstrap_iters=0)
    return {sample["doc"]["row_id"]: bool(sample["exact_match"]) for sample in found["samples"]["mine"]}


def test_a_task_is_of_the_suite_s_own_problems_and_the_command_says_how_it_is_run(
    write_suite: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = write_suite(8)
    assert main([str(problems), str(tmp_path / "task"), "--name", "mine", "--max-new-tokens", "9"]) == 0
    assert "--tasks mine --include_path" in capsys.readouterr().out
    task = json.loads((tmp_path / "task" / "mine.yaml").read_text())
    assert task["generation_kwargs"]["max_gen_toks"] == 9
    rows = [json.loads(line) for line in Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()]
    assert len(rows) == 8
    assert all(INSTRUCTION.strip() in row["prompt"] and row["answer"] for row in rows)
    assert main([str(tmp_path), str(tmp_path / "task")]) == 1
    assert "holds no suite's problems" in capsys.readouterr().err
