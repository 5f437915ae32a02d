"""Trainings that are killed, asked to stop, or find a broken checkpoint: gone on with, they end as if undisturbed."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.training.resume import ADAPTER
from ernie_pipeline.training.train import train
from ernie_pipeline.training.trainer import AdapterTrainer  # imported once, before its processes are forked
from ernie_pipeline_tests.training.conftest import adapter_bytes, weights_of
from ernie_pipeline_tests.training.processes import Disturb, Ended, Report, run

STEPS = 10
SMALL = {"samples_per_step": 2, "max_steps": STEPS, "eval_every": 4, "log_every": 3, "learning_rate": 3e-3}

UNDISTURBED: list[Ended] = []
"""Computed once."""


def at(line_start: str, act: Callable[[], Any]) -> Disturb:
    return lambda line: act() if line.startswith(line_start) else None


def ask(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


kill = ask(signal.SIGKILL)


@pytest.fixture
def train_small(make_trainer: Callable[..., Any]) -> Callable[..., Ended]:
    """Ten steps of two rows, a validation every four, the log every three; by default a checkpoint after each step.

    The result: the bytes of the trained weights, the curve, the best step, and the steps that it was gone on from.
    """

    def start(
        folder: Path | None, disturb: Disturb = lambda line: None, every_s: float = 1e-9, **settings: Any
    ) -> Ended:
        def work(report: Report) -> Any:
            execution = {"checkpoint_s": every_s, **settings.pop("execution", {})}
            trainer = make_trainer(report=report, checkpoints=folder, execution=execution, **{**SMALL, **settings})
            trainer.fit()
            weights = weights_of(trainer).numpy().tobytes()
            return weights, trainer.progress.curve, trainer.best["step"], trainer.resumed_from

        return run(work, disturb)

    return start


@pytest.fixture
def undisturbed(train_small: Any) -> Ended:
    """What all of these runs must come to."""
    if not UNDISTURBED:
        UNDISTURBED.append(train_small(None))
    return UNDISTURBED[0]


def test_killed_while_it_trains_and_while_it_writes_a_checkpoint_it_goes_on(
    train_small: Any, undisturbed: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = train_small(tmp_path, at("step 3/", kill))
    assert (ended.code, ended.lines[-1].split(":")[0]) == (-signal.SIGKILL, "step 3/10")

    whole_save = AdapterTrainer._fill

    def save_half_of_step_7(trainer: Any, optimizer: Any, folder: Path) -> None:
        whole_save(trainer, optimizer, folder)
        if trainer.state.global_step == 7:
            os.truncate(folder / ADAPTER, 1000)
            kill()

    with monkeypatch.context() as patched:
        patched.setattr(AdapterTrainer, "_fill", save_half_of_step_7)
        ended = train_small(tmp_path)
    assert ended.code == -signal.SIGKILL
    assert ended.lines[0].startswith("going on after step 2, from checkpoint ")
    assert list(tmp_path.glob(".checkpoint-7.*"))  # it was in the middle of it

    ended = train_small(tmp_path)
    assert ended.lines[0].startswith("going on after step 6, from checkpoint ")
    assert ended.result[:3] == undisturbed.result[:3]
    assert ended.result[3] == [2, 6]


def test_asked_to_stop_it_finishes_the_step_saves_and_goes_on_from_there(
    train_small: Any, undisturbed: Ended, tmp_path: Path
) -> None:
    ended = train_small(tmp_path, at("step 6/", ask(signal.SIGTERM)), every_s=300.0)
    assert ended.told == (
        "stopped by SIGTERM after step 7 of 10; its checkpoint is kept: run the same command again and it goes on from "
        "there"
    )
    ended = train_small(tmp_path, at("step 8/10: loss_obj", ask(signal.SIGINT)), every_s=300.0)
    assert ended.told.startswith("stopped by SIGINT after step 9 of 10;")
    ended = train_small(tmp_path, every_s=300.0)
    assert ended.result[:3] == undisturbed.result[:3]
    assert ended.result[3] == [7, 9]


def test_asked_to_stop_at_a_validation_it_is_made_by_the_next_process(
    train_small: Any, undisturbed: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the one after step 4; in the same one, made anew; and of the last one, after the last step."""
    loss_sum = PeftModel4bit.loss_sum

    def ask_in_the_middle(loaded: Any, documents: Any) -> Any:
        ask(signal.SIGTERM)()
        return loss_sum(loaded, documents)

    monkeypatch.setattr("ernie_pipeline.training.trainer.AT_A_TIME", 2)  # so that it is of several pieces
    with monkeypatch.context() as patched:
        patched.setattr(PeftModel4bit, "loss_sum", ask_in_the_middle)
        for _ in range(2):
            ended = train_small(tmp_path, every_s=300.0)
            assert ended.told.startswith("stopped by SIGTERM after step 4 of 10;")
            assert not any(": loss_objective" in line for line in ended.lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4"]
    ended = train_small(tmp_path, at("step 10/10: loss ", ask(signal.SIGTERM)), every_s=300.0)
    assert ended.told.startswith("stopped by SIGTERM after step 10 of 10;")
    ended = train_small(tmp_path, every_s=300.0)
    adapter, curve, steps, *_ = undisturbed.result
    assert (ended.result[0], ended.result[2]) == (adapter, steps)
    # a validation in several pieces rounds otherwise
    assert [*map(pytest.approx, curve)] == ended.result[1]


def test_a_broken_checkpoint_is_passed_over_aloud(train_small: Any, undisturbed: Ended, tmp_path: Path) -> None:
    train_small(tmp_path, at("step 6/", kill))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-5"]
    newest = tmp_path / "checkpoint-5" / "optimizer.pt"
    os.truncate(newest, newest.stat().st_size - 1)
    ended = train_small(tmp_path)
    assert "checkpoint-5 is altered (optimizer.pt) and is passed over" in ended.lines[0]
    assert ended.lines[1].startswith("going on after step 4, from checkpoint ")
    assert ended.result[:3] == undisturbed.result[:3]


def test_a_checkpoint_of_another_run_is_not_used(train_small: Any, undisturbed: Ended, tmp_path: Path) -> None:
    train_small(tmp_path, at("step 3/", kill))
    ended = train_small(tmp_path, learning_rate=1e-3)
    assert "is of a run with another recipe or rows, and is not used" in ended.lines[0]
    assert ended.result[3] == []
    assert ended.result[0] != undisturbed.result[0]  # so the comparisons of this file can tell


def test_without_a_place_for_checkpoints_a_stop_says_so(train_small: Any) -> None:
    ended = train_small(None, at("step 3/", ask(signal.SIGTERM)))
    assert (
        ended.told == "stopped by SIGTERM after step 4 of 10; it keeps no checkpoints, so the same command begins anew"
    )


def test_the_best_adapter_is_kept_and_survives_a_kill(train_small: Any, tmp_path: Path) -> None:
    # a learning rate that rises until it spoils the adapter
    bad = {"learning_rate": 30.0, "lr_scheduler": "constant_with_warmup", "warmup_fraction": 1.0, "eval_every": 1}
    best, last = (train_small(None, keep=keep, **bad) for keep in ("best", "last"))
    assert best.result[2] == last.result[2] < STEPS - 2
    assert best.result[0] != last.result[0]
    train_small(tmp_path, at(f"step {STEPS - 1}/", kill), keep="best", **bad)
    resumed = train_small(tmp_path, keep="best", **bad)
    assert resumed.result[3] == [STEPS - 2]
    assert resumed.result[:3] == best.result[:3]


def test_before_the_clock_asks_for_one_no_checkpoint_takes_time(train_small: Any, tmp_path: Path) -> None:
    train_small(tmp_path, at("step 6/", kill), every_s=300.0)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_what_ran_out_of_memory_once_begins_with_less_after_a_kill(
    train_small: Any, tmp_path: Path, demo_adapter: Any
) -> None:
    def check(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 1 and module.training:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = demo_adapter.module.register_forward_pre_hook(check, with_kwargs=True)
    try:
        whole = train_small(None, max_steps=4)
        killed = train_small(tmp_path, at("step 3/", kill), max_steps=4)
        ended = train_small(tmp_path, max_steps=4)
    finally:
        hook.remove()
    assert [any("ran out of memory" in line for line in one.lines) for one in (killed, ended)] == [True, False]
    assert ended.result[:3] == whole.result[:3]


def test_it_goes_on_under_another_execution(train_small: Any, undisturbed: Ended, tmp_path: Path) -> None:
    """Which rounds otherwise and is told nothing of how much at a time the first had come to."""
    small = {"micro_batch": 1, "packing": True, "gradient_checkpointing": True}
    train_small(tmp_path, at("step 6/", kill), execution=small)
    ended = train_small(tmp_path)
    assert ended.result[3] == [5]
    for one, other in zip(ended.result[1], undisturbed.result[1], strict=True):
        assert one == pytest.approx(other, rel=2e-3)
    assert ended.result[0] != undisturbed.result[0]  # the first steps were computed otherwise


def test_eight_bit_optimizer_states_are_kept_exactly(train_small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from bitsandbytes.optim import AdamW

    monkeypatch.setattr(AdamW.__init__, "__defaults__", _with_least_size(AdamW.__init__.__defaults__, 256))
    train_small(tmp_path, at("step 3/", kill), optimizer="adamw_8bit", max_steps=4)
    state = torch.load(tmp_path / "checkpoint-2" / "optimizer.pt", weights_only=True)["state"]
    assert torch.uint8 in {value.dtype for value in _tensors(state)}
    ended = train_small(tmp_path, optimizer="adamw_8bit", max_steps=4)
    assert ended.result[:3] == train_small(None, optimizer="adamw_8bit", max_steps=4).result[:3]


def _with_least_size(defaults: tuple[Any, ...], least: int) -> tuple[Any, ...]:
    """bitsandbytes keeps parameters of fewer than 4,096 values in 32 bits, and the demo's have fewer."""
    return tuple(least if value == 4096 else value for value in defaults)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value.values() for tensor in _tensors(part)] if isinstance(value, dict) else []


def test_the_whole_training_is_gone_on_with_to_the_same_adapter(make_job: Any, short_base: Any, tmp_path: Path) -> None:
    """With dropout: what is random in a step follows from the seed and the step."""
    given = {"training": SMALL | {"max_steps": 4, "log_every": 1}, "lora": {"dropout": 0.1}, "base": short_base}
    given |= {"execution": ExecutionOverrides(checkpoint_s=1e-9)}
    places = {"undisturbed": None, "killed": tmp_path / "checkpoints"}
    jobs = {name: make_job(name, checkpoints=place, **given) for name, place in places.items()}
    assert run(lambda report: train(jobs["undisturbed"], report)).code == 0
    assert run(lambda report: train(jobs["killed"], report), at("step 3/", kill)).code == -signal.SIGKILL
    assert run(lambda report: train(jobs["killed"], report)).code == 0
    first, second = (job.out for job in jobs.values())
    assert adapter_bytes(first) == adapter_bytes(second)
    assert (first / "curve.json").read_bytes() == (second / "curve.json").read_bytes()
    assert json.loads((second / "reports" / "run.json").read_text())["resumed_from"] == [2]
