"""Two processes that train together are one with the same batch."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.training.ranks import join_ranks
from ernie_pipeline.training.train import train
from ernie_pipeline.training.trainer import AdapterTrainer  # imported once, before its processes are forked
from ernie_pipeline_tests.training.conftest import weights_of
from ernie_pipeline_tests.training.processes import Report, run, run_ranks
from ernie_pipeline_tests.training.test_resume import ask, at

MakeJob = MakeTrainer = Callable[..., Any]
SMALL = ExecutionOverrides(micro_batch=3)


@pytest.mark.parametrize("backend", ["peft", "grouped"])
def test_two_processes_give_the_losses_and_the_gradients_of_one(
    make_job: MakeJob, short_base: Any, tmp_path: Path, backend: str
) -> None:
    """With samples that they cannot share evenly, and a last step of one, of which the second gets none.

    Between the first step and the others they end together, for a signal that only the second one was sent.
    """
    settings = {"samples_per_step": 3, "max_steps": 0, "max_samples": 7, "log_every": 2}
    given = {"training": settings, "base": short_base, "backend": backend, "execution": SMALL}
    one, two = (make_job(name, **given, checkpoints=tmp_path / "checkpoints" / name) for name in ("one", "two"))

    def ask_the_second(report: Report) -> None:
        step = AdapterTrainer.training_step

        def asked(self: Any, *args: Any) -> Any:
            if self.ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, *args)

        AdapterTrainer.training_step = asked
        train(two, report)

    stopped = run_ranks(2, ask_the_second)
    assert [ended.told.partition(" after step 1 of 3; its checkpoint is kept")[0] for ended in stopped] == [
        "stopped by a signal to another rank",
        "stopped by SIGTERM",
    ]
    first, second = run_ranks(2, lambda report: train(two, report))
    assert run(lambda report: train(one, report)).code == 0
    assert (first.code, second.code) == (0, 0)
    assert sum(line.startswith("adapter saved; ") for line in first.lines) == 1
    assert second.lines == []

    curves = [json.loads((job.out / "curve.json").read_text()) for job in (one, two)]
    for alone, together in zip(*curves, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    facts = json.loads((two.out / "reports" / "run.json").read_text())
    assert (facts["processes"], facts["samples"], facts["resumed_from"]) == (2, 7, [1])


@pytest.mark.parametrize("backend", ["peft", "grouped"])
def test_stopped_on_two_ranks_it_goes_on_to_the_same_bytes_and_on_one_to_the_same_loss(
    make_trainer: MakeTrainer, make_grouped_trainer: MakeTrainer, tmp_path: Path, backend: str
) -> None:
    make = make_grouped_trainer if backend == "grouped" else make_trainer
    settings = {"samples_per_step": 4, "max_steps": 6, "eval_every": 2, "log_every": 1, "learning_rate": 3e-3}

    def work(report: Report, folder: Path | None = tmp_path) -> Any:
        with join_ranks() as ranks:
            trainer = make(report=report, checkpoints=folder, ranks=ranks, optimizer="adamw_8bit", **settings)
            trainer.fit()
            return weights_of(trainer).numpy().tobytes(), trainer.progress.curve, trainer.resumed_from

    undisturbed = run_ranks(2, lambda report: work(report, None))
    stopped = run_ranks(2, work, at("step 3/", ask(signal.SIGTERM)))
    assert [ended.told.partition(" after step 4 of 6; ")[1] != "" for ended in stopped] == [True, True]
    kept = tmp_path / "of one"
    shutil.copytree(tmp_path, kept)
    ended = run_ranks(2, work)
    assert [one.result[2] for one in ended] == [[4], [4]]
    assert [one.result[0] for one in ended] == [undisturbed[0].result[0]] * 2
    assert ended[0].result[1] == undisturbed[0].result[1]

    alone = run(lambda report: work(report, kept))
    assert alone.result[2] == [4]
    for found, wanted in zip(alone.result[1], undisturbed[0].result[1], strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)


def test_every_rank_is_given_the_first_one_s_values() -> None:
    def work(report: Report) -> Any:
        with join_ranks() as ranks:
            own = [torch.full((3,), float(ranks.rank + 1)), torch.arange(2.0) - ranks.rank]
            ranks.broadcast_first(own)
            return [tensor.tolist() for tensor in own]

    assert [ended.result for ended in run_ranks(2, work)] == [[[1, 1, 1], [0, 1]]] * 2
