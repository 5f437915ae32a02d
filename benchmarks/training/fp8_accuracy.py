"""What training.fp8 costs in accuracy: the demo's base, trained with and without it, by the held-out loss.

    python benchmarks/training/fp8_accuracy.py SOLUTIONS [--seeds 5] [--steps 100]

SOLUTIONS is a folder with train.parquet and validation.parquet, as the stage verified_solutions leaves it (`ernie run`
with the recipe demo makes one). Validation is not made in 8-bit floats, so that both are measured alike. On a CPU the
values are rounded as a GPU's are, and the sums are in fp32. One line a seed, and a RESULT line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measured import add_commit, measured

from ernie_pipeline.demo import BASE
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.torchrun import command
from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.training.job import TrainingJob


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solutions", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    add_commit(parser)
    asked = parser.parse_args()
    losses: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(1, asked.seeds + 1):
        for fp8 in losses:
            losses[fp8].append(_held_out_loss(asked.solutions.resolve(), seed, asked.steps, fp8))
        print(f"seed {seed}: {losses[False][-1]:.4f}, with fp8 {losses[True][-1]:.4f}", flush=True)
    apart = [with_it - without for without, with_it in zip(losses[False], losses[True], strict=True)]
    means = {"loss": statistics.mean(losses[False]), "loss_fp8": statistics.mean(losses[True])}
    spread = {"apart": statistics.mean(apart), "apart_deviation": statistics.stdev(apart) if len(apart) > 1 else 0.0}
    figures = {name: round(value, 5) for name, value in {**means, **spread}.items()}
    print("RESULT " + json.dumps({**measured(parser, asked), "device": _device(), **figures}), flush=True)


def _held_out_loss(solutions: Path, seed: int, steps: int, fp8: bool) -> float:
    """After the last step, in nats a token."""
    with tempfile.TemporaryDirectory() as folder:
        job = _job(solutions, Path(folder), seed, steps, fp8)
        subprocess.run(command(write_job(Path(folder), "training", job), 1), check=True, stdout=sys.stderr)
        curve = json.loads((job.out / "curve.json").read_text())
    return float([entry["loss_objective"] for entry in curve if "loss_objective" in entry][-1])


def _job(solutions: Path, folder: Path, seed: int, steps: int, fp8: bool) -> TrainingJob:
    recipe = load_recipe("demo")
    changes = {"backend": "grouped", "max_steps": steps, "max_samples": 0, "seed": seed, "fp8": fp8}
    (folder / "out").mkdir()
    return TrainingJob(
        spec=ModelSpec(
            backend="grouped",
            base=BaseCheckpoint(name="demo", checkpoint=str(BASE), version="fp8"),
            quantization=recipe.quantization,
            lora=recipe.lora,
            quantized_bases=folder / "bases",
        ),
        training=recipe.training.model_copy(update=changes),
        execution=ExecutionOverrides(profile="80gb" if torch.cuda.is_available() else "cpu"),
        limits=DeviceLimits(cpu_threads=1),
        split=solutions,
        solutions=solutions,
        out=folder / "out",
    )


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
