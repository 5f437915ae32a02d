"""A whole training, from the start of its process to the saved adapter, timed from outside: one RESULT line.

    python benchmarks/training/whole.py CHECKPOINT [--samples 5600] [--step 8] [--profile 40gb] [--micro-batch N]

CHECKPOINT is a folder with ERNIE-4.5-21B-A3B's shapes; random weights do (benchmarks/full_size/make_checkpoint.py):
speed and memory are real on them, the losses mean nothing. The job is the recipe `reference`'s, on rows of log-normal
length with a median of 130 tokens, as the rows of Nemotron-RL are: the checkpoint's tokenizer makes a token of each
character. `--micro-batch`: documents computed at a time, by default all of a step. The line's `timeline` has what the
process did when, in seconds from its start, which is also shown as a table; `kernels_compiled` is how many of Triton's
kernels were not in its cache yet.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from measured import add_commit, measured

from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.training.job import TrainingJob

COLUMNS = {"train": 7600, "eval": 400}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--backend", default="grouped", choices=["grouped", "peft", "unsloth"])
    parser.add_argument("--samples", type=int, default=5600)
    parser.add_argument("--step", type=int, default=8, help="samples a step")
    parser.add_argument("--profile", default="40gb")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--limit-gib", type=float, help="instead of the profile's")
    parser.add_argument("--gradient-checkpointing", action=argparse.BooleanOptionalAction, help="likewise")
    parser.add_argument("--eval-every", type=int)
    parser.add_argument("--fp8", action="store_true", help="training.fp8 = true")
    parser.add_argument("--processes", type=int, default=1)
    home = Path(tempfile.gettempdir()) / "ernie-benchmark"
    parser.add_argument("--home", type=Path, default=home, help="a pipeline's home, for its quantized base")
    parser.add_argument("--cold", action="store_true", help="without the quantized base that an earlier run left")
    add_commit(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job = _job(asked, Path(folder))
        if asked.cold:
            shutil.rmtree(asked.home, ignore_errors=True)
        result = _timed(job, Path(folder), asked.processes)
    for since, until, what in result["timeline"]:
        print(f"{since:8.2f} to {until:7.2f}  {until - since:7.2f} s  {what}")
    print("RESULT " + json.dumps({**measured(parser, asked), "profile": asked.profile, **result}), flush=True)


def _job(asked: argparse.Namespace, folder: Path) -> TrainingJob:
    recipe = load_recipe("reference")
    changes = {
        "backend": asked.backend,
        "samples_per_step": asked.step,
        "max_steps": asked.samples // asked.step,
        "eval_every": asked.eval_every or recipe.training.eval_every,
        "fp8": asked.fp8,
    }
    _write_rows(folder)
    (folder / "out").mkdir()
    checkpoint = str(asked.checkpoint.resolve())
    version = checkpoint_version(asked.checkpoint, remembered_sha256)  # outside of what is timed
    return TrainingJob(
        spec=ModelSpec(
            backend=asked.backend,
            base=BaseCheckpoint(name=checkpoint, checkpoint=checkpoint, version=version),
            quantization=recipe.quantization,
            lora=recipe.lora,
            quantized_bases=asked.home / "store" / ".bases",
        ),
        training=recipe.training.model_copy(update=changes),
        execution=ExecutionOverrides(
            profile=asked.profile,
            micro_batch=asked.micro_batch or asked.step,
            memory_limit_gib=asked.limit_gib,
            gradient_checkpointing=asked.gradient_checkpointing,
        ),
        limits=DeviceLimits(cpu_threads=4),
        split=folder,
        out=folder / "out",
        checkpoints=folder / "checkpoints",
    )


def _write_rows(folder: Path) -> None:
    rng = random.Random(0)
    for part, number in COLUMNS.items():
        texts = []
        for _ in range(number):
            length = min(2048, max(40, round(rng.lognormvariate(4.868, 0.5))))  # e^4.868 = 130
            texts.append("".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length)))
        table = {"prompt_text": [text[:-20] for text in texts], "completion_text": [text[-20:] for text in texts]}
        pq.write_table(pa.table(table), folder / f"{part}.parquet")


def _timed(job: TrainingJob, folder: Path, processes: int) -> dict[str, Any]:
    job_file = write_job(folder, "training", job)
    environment = {**os.environ, **surroundings(processes, 60), "OMP_NUM_THREADS": "4"}
    compiled, start = _kernels(), time.time()
    ended = subprocess.run(command(job_file, processes), env=environment)
    wall = time.time() - start
    if ended.returncode:
        sys.exit(f"the training ended with status {ended.returncode}")
    run, speed, curve = (_json(job.out / name) for name in ("reports/run.json", "reports/speed.json", "curve.json"))
    timeline = job.out / "reports" / "timeline.json"  # commits before 2026-11-29 have none
    saved = (job.out / "adapter" / "adapter_model.safetensors").stat().st_mtime - start
    kept = ("backend", "processes", "steps", "samples", "tokens", "seconds", "tokens_per_s", "micro_batch")
    more = ("micro_batch_tokens", "peak_gpu_gib", "padding_share", "trainable_parameters")
    return {
        "card": run["device"],
        "layers": _json(Path(job.spec.base.checkpoint) / "config.json")["num_hidden_layers"],
        **{name: run[name] for name in (*kept, *more)},
        "saved_after_s": round(saved, 1),
        "process_s": round(wall, 1),
        **{name: [entry[name] for entry in curve if name in entry][-1] for name in ("loss", "loss_objective")},
        "kernels_compiled": _kernels() - compiled,
        "timeline": _from_start(_json(timeline), start, wall) if timeline.exists() else [],
        "speed": [round(entry["tokens_per_s"]) for entry in speed],
    }


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _kernels() -> int:
    """How many compiled kernels Triton keeps."""
    cache = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    return sum(1 for _ in cache.glob("*/*.cubin"))


def _from_start(marks: dict[str, Any], start: float, wall: float) -> list[tuple[float, float, str]]:
    """The parts of the process in seconds from its start, without those that took less than 0.05."""
    began = marks["began_at"] - start
    parts = [(a + began, b + began, what) for a, b, what in marks["parts"]]
    last = max(until for _, until, _ in parts)
    parts = [(0.0, began, "start of the process"), *parts, (last, wall, "end of the process")]
    return [(round(since, 2), round(until, 2), what) for since, until, what in parts if until - since >= 0.05]


if __name__ == "__main__":
    main()
