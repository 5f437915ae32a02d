"""The job file, which both sides validate, and the table of work that it names."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ernie_pipeline.launch.envelope import Envelope, write_job
from ernie_pipeline.launch.parent import this_process
from ernie_pipeline.launch.prepare import model_first, unsloth_first
from ernie_pipeline.launch.work import WORK, Job, WorkKind
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.launch.children import ChildJob, python_path, work_in

CHILD = "child_by_hand"


def imported(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_every_work_in_the_table_can_be_imported_and_takes_its_job(work: WorkKind) -> None:
    assert issubclass(imported(work.job), BaseModel)
    assert callable(imported(work.function))
    assert callable(imported(work.prepare))


def test_to_read_the_table_loads_none_of_the_work() -> None:
    code = (
        "import sys, ernie_pipeline.launch.envelope\nprint([m for m in sys.modules if m.startswith('ernie_pipeline.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"data", "training", "evaluation", "models"} & {name.split(".")[1] for name in eval(done.stdout)}


def test_a_job_file_says_what_work_it_is_for_and_who_waits(tmp_path: Path) -> None:
    file = write_job(tmp_path, work_in(CHILD), ChildJob(out=tmp_path, number=7), this_process())
    assert file == tmp_path / f"{CHILD}.json"
    read = Envelope.model_validate_json(file.read_bytes())
    assert (read.work, read.parent) == (work_in(CHILD), this_process())
    assert ChildJob.model_validate(read.job) == ChildJob(out=tmp_path, number=7)
    with pytest.raises(ValidationError):
        read.job = {}
    with pytest.raises(ValidationError, match="extra"):
        Envelope.model_validate({**json.loads(file.read_bytes()), "then": "sing"})


def test_a_job_of_another_work_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"work split takes a job of ernie_pipeline\.data\.job:SplitJob, not of .*ChildJob"
    ):
        write_job(tmp_path, "split", ChildJob(out=tmp_path))


def by_hand(folder: Path, change: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    """The child started without a step, its job changed behind the parent's back."""
    (folder / f"{CHILD}.py").write_text("def work(job, report):\n    report(f'number {job.number}', {})\n")
    file = write_job(folder, work_in(CHILD), ChildJob(out=folder))
    envelope = json.loads(file.read_bytes())
    file.write_text(json.dumps({**envelope, "job": envelope["job"] | change}))
    command = [sys.executable, "-m", "ernie_pipeline.launch.child", str(file)]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": python_path(folder)})


def test_a_child_started_by_hand_prints(tmp_path: Path) -> None:
    done = by_hand(tmp_path, {"number": 3})
    assert (done.returncode, done.stdout, done.stderr) == (0, "number 3\n", "")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": "blue"}, "(colour: Extra inputs are not permitted)"),
        ({"limits": {"cpu_threads": 0}}, "(limits.cpu_threads: Input should be greater than or equal to 1)"),
    ],
)
def test_a_job_that_does_not_fit_is_one_sentence(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    done = by_hand(tmp_path, change)
    sentence = f"the job of {CHILD} does not fit the code that is to do it {problem}; run the step again\n"
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.parametrize("prepare", [unsloth_first, model_first])
def test_only_a_model_of_the_backend_unsloth_has_unsloth_imported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Job], None]
) -> None:
    (tmp_path / "unsloth.py").write_text("raise RuntimeError('unsloth is imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    for job in ({}, {"spec": None}, {"spec": {"backend": "grouped"}}):
        prepare(job)
    with pytest.raises(PipelineError, match="unsloth is imported"):
        prepare({"spec": {"backend": "unsloth"}})


def test_what_was_imported_for_a_work_is_looked_through_for_garbage_no_more(tmp_path: Path) -> None:
    (tmp_path / "imported_work.py").write_text(
        "import gc\n"
        "from pydantic import BaseModel\n"
        "collected = gc.isenabled()\n"
        "class Given(BaseModel): pass\n"
        "def do(job, report): print(collected, gc.isenabled(), gc.get_freeze_count() > 1000)\n"
    )
    script = """
from ernie_pipeline.launch.work import WorkKind
WorkKind(name="work", function="imported_work:do", job="imported_work:Given").do({}, print)
"""
    environment = {**os.environ, "PYTHONPATH": python_path(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout == "False True True\n", done.stderr


def test_training_imports_nothing_that_it_has_no_use_for() -> None:
    script = """
import sys
from ernie_pipeline.launch.prepare import training_first
training_first({"spec": {"backend": "peft"}})
import ernie_pipeline.training.train, ernie_pipeline.training.trainer, ernie_pipeline.training.grpo.trainer
print([name for name in ("trl", "scipy", "sklearn", "boto3") if sys.modules.get(name)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['trl']\n"


GROUPED = {"backend": "grouped", "base": {"name": "demo", "checkpoint": "demo"}, "quantization": {}}


@pytest.mark.parametrize(
    ("job", "rank", "device"),
    [
        ({"spec": GROUPED}, None, "cuda:0"),
        ({"spec": GROUPED}, "1", "cuda:1"),
        ({"spec": GROUPED, "part": None}, None, "cuda:0"),
        ({"spec": GROUPED, "part": {"number": 0}}, None, None),
        ({"spec": GROUPED | {"backend": "peft"}}, None, None),
        ({"spec": GROUPED | {"base": "of other code"}}, None, None),
    ],
)
def test_what_always_loads_a_grouped_model_begins_to_read_its_base_on_the_gpu_of_its_rank(
    monkeypatch: pytest.MonkeyPatch, job: Job, rank: str | None, device: str | None
) -> None:
    begun: list[str] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.init", lambda: None)
    monkeypatch.setattr(
        "ernie_pipeline.models.grouped.read_ahead.begin_to_read", lambda spec, device: begun.append(device)
    )
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    model_first(job)
    assert begun == ([device] if device else [])


def test_without_a_gpu_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ernie_pipeline.models.grouped.read_ahead.begin_to_read", lambda *given: pytest.fail("begun"))
    model_first({"spec": GROUPED})
