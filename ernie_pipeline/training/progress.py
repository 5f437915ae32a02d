"""Losses and speed while it trains: to the log, to Dagster by way of the pipe, and kept as a curve."""

import math
import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.reporter import Reporter
from ernie_pipeline.utils.timeline import ended

KEPT = ("learning_rate", "grad_norm")
SHOWN = ("loss", "loss_objective", "reward", "solved", "mismatch_kl", "accuracy", "learning_rate", "tokens_per_s")


class Progress(TrainerCallback):  # type: ignore[misc]
    """Adds tokens, speed and an estimated end to what the Trainer logs, and reports each log entry and validation loss.

    `curve` has what follows from the recipe and the rows alone, the same whatever interrupted the run; `speed` has the
    timings of each window between two log entries; both with the means of what `add` was told. Seconds are those of
    the training: of a resumed run, all its processes' together. `step_tokens`: the tokens of each planned step, all
    ranks' together, padding excluded; known when the step ends.
    """

    def __init__(self, report: Reporter, step_tokens: Sequence[int], eval_every: int, ranks: Ranks):
        self.report, self.step_tokens, self.eval_every, self.ranks = report, step_tokens, eval_every, ranks
        self.curve: list[dict[str, float]] = []
        self.speed: list[dict[str, float]] = []
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.window = new_window()
        self.added: dict[str, dict[str, list[float]]] = {}
        """What `add` was told in the window: of "curve" and "speed" each name's sum and number."""
        self._loss: torch.Tensor | None = None
        """The losses of this process' steps in the window, summed on the device: to read it is to wait."""
        self._running_since: float | None = None
        self._steps: list[float] = [0, 0.0]
        """This process' steps and their seconds, without the first, slow one."""
        self._other_seconds: list[float] = []

    @property
    def steps_here(self) -> int:
        """That this process has made."""
        return int(self._steps[0])

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return len(self.step_tokens)

    def on_step_begin(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        if self._running_since is None:
            self._running_since = time.monotonic()

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        self.step = state.global_step
        self.tokens += self.step_tokens[self.step - 1]
        self.window["tokens"] += self.step_tokens[self.step - 1]
        self._steps[0] += 1
        if self._steps[0] == 1:
            self.pause()
            ended("first step", self._steps[1])
            self._steps[1] = 0.0

    def on_log(
        self,
        args: object,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if "loss" not in (logs or {}):
            return
        values = {"loss": self._summed_loss() / max(1, self.window["steps"])}
        values |= {name: float(value) for name, value in (logs or {}).items() if name in KEPT}
        self._check(values["loss"])
        self.pause()
        rate = self.window["tokens"] / max(self.window["seconds"], 1e-9)
        more, times = self._means("curve"), self._means("speed")
        self.window, self._loss, self.added = new_window(), None, {}
        self.speed.append({"step": self.step, "tokens_per_s": rate, "seconds": self.seconds, **times})
        passing = {"tokens_per_s": rate, **times}
        self._tell({**values, "tokens": self.tokens, **more}, {name: round(each, 1) for name, each in passing.items()})

    def add(self, place: Literal["curve", "speed"], values: dict[str, float]) -> None:
        """Further figures of a step, the same on all ranks; their means over the window's steps are told with it."""
        sums = self.added.setdefault(place, {})
        for name, value in values.items():
            total, number = sums.get(name, (0.0, 0))
            sums[name] = [total + value, number + 1]

    def _means(self, place: str) -> dict[str, float]:
        return {name: total / number for name, (total, number) in self.added.get(place, {}).items()}

    def add_loss(self, loss: torch.Tensor) -> None:
        """The loss of a step, a detached scalar."""
        before = loss.new_tensor(self.window["loss"]) if self._loss is None else self._loss
        self._loss = before + loss
        self.window["steps"] += 1

    def _summed_loss(self) -> float:
        """Over the window's steps, the mean of all ranks'."""
        if self._loss is None:
            return self.window["loss"]
        return self.ranks.sum(float(self._loss))[0] / self.ranks.size

    def pause(self) -> None:
        """Stop the clock of the steps, until the next one begins; what the GPU has still to do counts."""
        if self._running_since is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        passed = time.monotonic() - self._running_since
        self._running_since = None
        self.seconds += passed
        self.window["seconds"] += passed
        self._steps[1] += passed

    def evaluated(self, loss: float, seconds: float, shown: dict[str, float] | None = None) -> None:
        """The validation loss after the steps so far; what is `shown` of it, if not the loss itself."""
        self._check(loss)
        self.seconds += seconds
        self._other_seconds.append(seconds)
        self._tell(shown or {"loss_objective": loss}, {})

    def saved(self, seconds: float) -> None:
        """A checkpoint was written."""
        self.seconds += seconds

    @property
    def seconds_left(self) -> float:
        """At the mean speed of this process' steps without the first, slow one, or where there is no other of all
        steps so far; with the validations to come."""
        validations = -(-self.steps // self.eval_every) - self.step // self.eval_every
        seconds, steps = (self._steps[1], self._steps[0] - 1) if self._steps[0] > 1 else (self.seconds, self.step)
        return seconds / max(1, steps) * (self.steps - self.step) + validations * statistics.fmean(
            self._other_seconds or [0.0]
        )

    @property
    def tokens_per_s(self) -> float:
        """The median over the windows: neither the first, slow step nor a pause counts for much."""
        return statistics.median(entry["tokens_per_s"] for entry in self.speed)

    def state(self) -> dict[str, Any]:
        """What another process needs to go on from here, see `restore`; values of JSON's types."""
        names = ("curve", "speed", "step", "tokens", "seconds", "added")
        window = {**self.window, "loss": self._summed_loss()}
        return {"window": window, **{name: getattr(self, name) for name in names}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        for name, value in state.items():
            setattr(self, name, value)

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise PipelineError(
                f"the loss is no number any more after step {self.step} of {self.steps}: lower training.learning_rate, "
                "or raise training.warmup_fraction"
            )

    def _tell(self, values: dict[str, float], passing: dict[str, float]) -> None:
        """`values` go into the curve, in an order that a checkpoint keeps; both are shown."""
        self.curve.append(dict(sorted({"step": self.step, **values}.items())))
        left = self.seconds_left
        end = datetime.now().astimezone() + timedelta(seconds=left)
        shown = {
            **values,
            **passing,
            "seconds": round(self.seconds, 1),
            "seconds_left": round(left, 1),
            "estimated_end": end.isoformat(timespec="seconds"),
        }
        if torch.cuda.is_available():
            shown["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        line = ", ".join(f"{name.replace('_per_', '/')} {shown[name]:.4g}" for name in SHOWN if name in shown)
        clock = f"{self.seconds:.0f} s, about {left:.0f} s left, until {end:%H:%M:%S}"
        self.report(
            f"step {self.step}/{self.steps}: {line} ({clock})",
            {"step": self.step, "max_steps": self.steps, **shown},
        )


def new_window() -> dict[str, float]:
    """What is counted between two log entries; `loss`: the sum of steps before a checkpoint that is gone on from."""
    return {"tokens": 0.0, "seconds": 0.0, "loss": 0.0, "steps": 0}
