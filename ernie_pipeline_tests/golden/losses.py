"""The losses of ten steps of the demo model, by device and backend: `losses.json` holds what they were.

python -m ernie_pipeline_tests.golden.losses BACKEND    prints those of this machine's device, to be put there

BACKEND is one, or grouped-fp8: with training.fp8.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ernie_pipeline.training.job import TrainingJob

GOLDEN = Path(__file__).with_name("losses.json")
STEPS = 10


def losses(backend: str, folder: Path) -> list[float]:
    """The training losses of ten steps of eight rows, from one learning rate on, in a process of its own."""
    from ernie_pipeline.launch.envelope import write_job
    from ernie_pipeline.launch.torchrun import command

    # Unsloth's own compilation takes minutes for a model of seconds
    environment = {**os.environ, "UNSLOTH_COMPILE_DISABLE": "1"}
    job = write_job(folder, "training", _job(backend, folder))
    subprocess.run(command(job, 1), check=True, stdout=sys.stderr, env=environment)
    curve = json.loads((folder / "out" / "curve.json").read_text())
    return [entry["loss"] for entry in curve if "loss" in entry]


def _job(backend: str, folder: Path) -> "TrainingJob":
    """In fp32 on a CPU; on CUDA in bfloat16 with double quantization, as the real size is trained."""
    import torch

    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.device import DeviceLimits
    from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
    from ernie_pipeline.recipe.execution import ExecutionOverrides
    from ernie_pipeline.recipe.sections import Lora, Quantization, Training
    from ernie_pipeline.training.job import TrainingJob
    from ernie_pipeline_tests.tiny_split import write_tiny_split

    cuda = torch.cuda.is_available()
    quantization = Quantization() if cuda else Quantization(compute_dtype="float32", double=False)
    backend, _, fp8 = backend.partition("-")
    settings = Training(
        backend=backend,
        max_steps=STEPS,
        samples_per_step=8,
        learning_rate=1e-3,
        log_every=1,
        optimizer="adamw_torch",
        fp8=bool(fp8),
    )
    (folder / "out").mkdir(parents=True)
    return TrainingJob(
        spec=ModelSpec(
            backend=backend,
            base=BaseCheckpoint(name="demo", checkpoint=str(BASE), version="golden"),
            quantization=quantization,
            lora=Lora(rank=8, alpha=16),
            quantized_bases=folder / "bases",
        ),
        training=settings,
        execution=ExecutionOverrides(profile="80gb" if cuda else "cpu"),
        limits=DeviceLimits(cpu_threads=1),
        split=write_tiny_split(folder),
        out=folder / "out",
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({sys.argv[1]: losses(sys.argv[1], Path(folder))}))
