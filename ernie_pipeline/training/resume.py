"""A training run's own part of a checkpoint, and back: with it, another process goes on as if nothing had been."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.sections import Training
from ernie_pipeline.training.checkpoints import Checkpoint, Checkpoints, Facts
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.rows import Row
from ernie_pipeline.training.sharding.state import OptimizerState
from ernie_pipeline.utils.errors import PipelineError, Stopped
from ernie_pipeline.utils.reporter import Reporter

ADAPTER = "adapter.safetensors"
BEST = "best.safetensors"

Weights = dict[str, torch.Tensor]
"""The values of the trainable parameters by their names in the model in memory, on the CPU.

Not in PEFT's format: what it loads by name it first renames for the model's type, and a backend's may be its own.
"""


def set_weights(trainable: Weights, weights: Weights) -> None:
    """Make the adapter what it was. Raises `PipelineError` unless it has the very parameters of `weights`."""
    if {name: p.shape for name, p in trainable.items()} != {name: value.shape for name, value in weights.items()}:
        raise PipelineError(
            "the checkpoint's adapter has other parameters than this one; remove the checkpoint's folder"
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(weights[name])


def save_weights(weights: Weights, file: Path) -> None:
    """Write them."""
    save_file(weights, file)


def read_weights(file: Path) -> Weights:
    """What `save_weights` wrote. Raises `PipelineError` for a file that this version cannot read."""
    try:
        weights: Weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise PipelineError(
            f"checkpoint {file} is intact but cannot be read ({error}); remove {file.parent} and run again"
        ) from error
    return weights


def run_key(
    spec: ModelSpec, settings: Training, rows: Iterable[Row], eval_rows: Iterable[Row], *more: JsonValue
) -> str:
    """A hash of what a run is made of: a checkpoint of another run is of no use to it.

    How it is computed is not in it: a run goes on under another execution.
    """
    model = spec.model_dump(mode="json", include={"backend": True, "quantization": True, "lora": True})
    base = [spec.base.name, spec.base.revision]
    made_of = [model, base, settings.model_dump(mode="json"), [*rows], [*eval_rows], *more]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def save_states(optimizer: OptimizerState, schedule: dict[str, Any], folder: Path) -> None:
    """Write the states of both into a checkpoint's folder, under the Trainer's names."""
    torch.save(optimizer, folder / OPTIMIZER_NAME)
    torch.save(schedule, folder / SCHEDULER_NAME)


def read_states(folder: Path) -> tuple[OptimizerState, dict[str, Any]]:
    """The states of both, optimizer and schedule, that `save_states` wrote."""
    optimizer, schedule = (
        torch.load(folder / name, map_location="cpu", weights_only=True) for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
    )
    return optimizer, schedule


class Saved:
    """The checkpoints of the run `key` in a folder, or nowhere. Only the first rank writes; all of them read."""

    def __init__(self, folder: Path | None, key: str, ranks: Ranks, report: Reporter):
        self.checkpoints = Checkpoints(folder) if folder else None
        self.key, self.ranks, self.report = key, ranks, report
        self.last: int | None = None

    def newest(self) -> Checkpoint | None:
        """The newest intact checkpoint, said aloud; None when there is none to go on from."""
        if not self.checkpoints:
            return None
        found = self.checkpoints.newest(on_broken=lambda sentence: self.report(sentence, {}))
        if not found:
            return None
        if found.facts["run"] != self.key:
            self.report(f"checkpoint {found.folder} is of a run with another recipe or rows, and is not used", {})
            return None
        self.last = found.step
        self.report(f"going on after step {found.step}, from checkpoint {found.folder}", {"resumed_step": found.step})
        return found

    def write(self, step: int, fill: Callable[[Path], None], facts: Facts) -> None:
        """Write a checkpoint, see `Checkpoints.write`; keep it and the one before."""
        if self.checkpoints and self.ranks.first:
            self.checkpoints.write(step, fill, {**facts, "run": self.key})
            self.checkpoints.keep(step, *([] if self.last is None else [self.last]))
        self.last = step
        self.ranks.wait()

    def stopped(self, ended_by: str, step: int, steps: int) -> Stopped:
        """What to say of a training that was asked to stop after `step` of `steps`, and did."""
        where = f"stopped by {ended_by} after step {step} of {steps}"
        if self.checkpoints is None:
            return Stopped(f"{where}; it keeps no checkpoints, so the same command begins anew")
        return Stopped(f"{where}; its checkpoint is kept: run the same command again and it goes on from there")
