"""What a training tells while it runs."""

from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ernie_pipeline.training import progress as module
from ernie_pipeline.training.progress import Progress
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.utils.errors import PipelineError


class Telling:
    """A progress whose clock the test moves, and what it reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int, eval_every: int):
        self.now, self.values, self.lines = 100.0, list[dict[str, Any]](), list[str]()
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.progress = self.another(steps, eval_every)

    def another(self, steps: int, eval_every: int) -> Progress:
        return Progress(self.hear, [50] * steps, eval_every, Ranks())

    def hear(self, line: str, told: dict[str, Any]) -> None:
        self.values.append(told)
        self.lines.append(line)

    def step(self, seconds: float = 1.0, loss: float | None = None, progress: Progress | None = None) -> None:
        """As the Trainer does it; it logs with a loss."""
        progress = progress or self.progress
        state = SimpleNamespace(global_step=progress.step + 1)
        progress.on_step_begin(None, state, None)
        self.now += seconds
        progress.add_loss(torch.tensor(1.0 if loss is None else loss))
        progress.on_step_end(None, state, None)
        if loss is not None:
            progress.on_log(None, state, None, logs={"loss": loss, "learning_rate": 1e-3, "grad_norm": 2.0, "epoch": 1})


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Telling]:
    return lambda steps, eval_every: Telling(monkeypatch, steps, eval_every)


def test_a_log_entry_has_the_speed_since_the_last_one(telling: Callable[..., Telling]) -> None:
    told = telling(steps=4, eval_every=4)
    told.step(seconds=4.0)
    assert told.values == []
    told.step(seconds=1.0, loss=1.5)
    told.step(seconds=0.5, loss=1.2)
    first, second = told.values
    assert (first["step"], first["max_steps"], first["loss"], first["tokens"]) == (2, 4, 1.25, 100)
    assert (first["tokens_per_s"], second["tokens_per_s"]) == (20.0, 100.0)
    assert "tokens/s 20" in told.lines[0]


def test_what_is_left_goes_by_the_speed_without_the_first_step_and_with_validations(
    telling: Callable[..., Telling],
) -> None:
    told = telling(steps=20, eval_every=5)
    for number in range(5):
        told.step(seconds=60.0 if number == 0 else 2.0, loss=1.0 if number == 4 else None)
    told.progress.evaluated(0.9, seconds=10.0)
    assert told.values[0]["seconds_left"] == pytest.approx(15 * 2)
    assert told.values[1]["seconds_left"] == pytest.approx(15 * 2 + 3 * 10)
    left = datetime.fromisoformat(told.values[1]["estimated_end"]) - datetime.now().astimezone()
    assert left.total_seconds() == pytest.approx(60, abs=3)
    assert "loss_objective 0.9 (78 s, about 60 s left, until " in told.lines[1]


def test_what_is_left_after_one_step_goes_by_all_steps_so_far(telling: Callable[..., Telling]) -> None:
    """Of a process that goes on, those of the processes before it too."""
    first = telling(steps=11, eval_every=20)
    first.step(seconds=6.0, loss=1.0)
    assert first.values[-1]["seconds_left"] == pytest.approx(10 * 6)
    first.step(seconds=2.0, loss=1.0)
    later = first.another(11, 20)
    later.restore(first.progress.state())
    first.step(seconds=4.0, loss=1.0, progress=later)
    assert first.values[-1]["seconds_left"] == pytest.approx(8 * (6 + 2 + 4) / 3)


def test_speed_leaves_out_validation_and_saving(telling: Callable[..., Telling]) -> None:
    told = telling(steps=4, eval_every=2)
    for _ in range(2):
        told.step()
        told.step(loss=1.0)
        told.progress.pause()
        told.now += 200.0
        told.progress.evaluated(1.0, seconds=100.0)
        told.progress.saved(seconds=100.0)
    assert [entry["tokens_per_s"] for entry in told.progress.speed] == [50.0, 50.0]
    assert told.values[-1]["seconds"] == 304.0


def test_the_curve_has_no_timings(telling: Callable[..., Telling]) -> None:
    told = telling(steps=2, eval_every=2)
    told.step(loss=1.0)
    told.step(loss=0.9)
    told.progress.evaluated(0.5, 1.0)
    assert [entry["step"] for entry in told.progress.curve] == [1, 2, 2]
    assert {name for entry in told.progress.curve for name in entry} == {
        *("step", "loss", "learning_rate", "grad_norm", "tokens", "loss_objective")
    }


def test_in_the_middle_of_a_window_another_process_goes_on_with_its_sums(telling: Callable[..., Telling]) -> None:
    told = telling(steps=4, eval_every=4)
    first, second = told.progress, told.another(4, 4)
    told.step(seconds=1.0)
    told.step(seconds=1.0)
    first.pause()
    second.restore(first.state())
    told.now += 1000.0
    told.step(seconds=1.0, progress=second)
    told.step(seconds=1.0, progress=second, loss=0.5)
    assert second.speed == [{"step": 4, "tokens_per_s": 50.0, "seconds": 4.0}]
    assert second.curve[0]["tokens"] == 200
    assert second.curve[0]["loss"] == (1 + 1 + 1 + 0.5) / 4


def test_a_loss_that_is_no_number_ends_the_training(telling: Callable[..., Telling]) -> None:
    told = telling(steps=4, eval_every=4)
    sentence = r"the loss is no number any more after step 1 of 4: lower training\.learning_rate"
    with pytest.raises(PipelineError, match=sentence):
        told.step(loss=float("nan"))
    with pytest.raises(PipelineError, match=sentence):
        told.progress.evaluated(float("inf"), 1.0)
