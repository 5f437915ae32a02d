"""A whole training, from the start of its process to the saved adapter, timed from outside: one RESULT line.

    python benchmarks/training/whole.py CHECKPOINT [--samples 5600] [--batch-size 8] [--limit-gib 40] [--processes 1]

CHECKPOINT is a folder with ERNIE-4.5-21B-A3B's shapes; random weights do (benchmarks/full_size/make_checkpoint.py):
speed and memory are real on them, the losses mean nothing. The job is the recipe `fast`'s, on rows of log-normal length
with a median of 130 tokens, as the rows of Nemotron-RL are: the checkpoint's tokenizer makes a token of each character.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.torchrun import command, surroundings
from ernie_pipeline.launch.untyped import UntypedJob
from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.recipe.load import load_recipe
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256

COLUMNS = {"train": 7600, "eval": 400}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--samples", type=int, default=5600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--limit-gib", type=float, default=40)
    parser.add_argument("--eval-every", type=int)
    parser.add_argument("--processes", type=int, default=1)
    home = Path(tempfile.gettempdir()) / "ernie-benchmark"
    parser.add_argument("--home", type=Path, default=home, help="a pipeline's home, for its packed base")
    parser.add_argument("--cold", action="store_true", help="without the packed base that an earlier run left")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job = _job(asked, Path(folder))
        if asked.cold:
            subprocess.run(["rm", "-rf", job["gpu"]["bases"]], check=True)
        result = _timed(job, Path(folder), asked.processes)
    print("RESULT " + json.dumps({"recipe": asked.recipe, "cold": asked.cold, **result}), flush=True)


def _job(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    recipe = load_recipe(asked.recipe)
    training = recipe.training.model_dump(mode="json") | {
        "batch_size": asked.batch_size,
        "accumulation": asked.accumulation,
        "max_steps": asked.samples // (asked.batch_size * asked.accumulation),
        "memory_limit_gib": asked.limit_gib,
        "eval_every": asked.eval_every or recipe.training.eval_every,
    }
    _write_rows(folder)
    (folder / "out").mkdir()
    checkpoint = str(asked.checkpoint.resolve())
    version = checkpoint_version(asked.checkpoint, remembered_sha256)  # outside of what is timed
    return {
        "engine": "auto",
        "base": {"name": checkpoint, "checkpoint": checkpoint, "revision": None, "version": version},
        "quantization": recipe.quantization.model_dump(mode="json"),
        "lora": recipe.lora.model_dump(mode="json"),
        "training": training,
        "split": str(folder),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
        "gpu": {"kind": "", "memory_gib": None, "cpu_threads": 4, "bases": str(asked.home / "store" / ".bases")},
    }


def _write_rows(folder: Path) -> None:
    rng = random.Random(0)
    for part, number in COLUMNS.items():
        texts = []
        for _ in range(number):
            length = min(2048, max(40, round(rng.lognormvariate(4.868, 0.5))))  # e^4.868 = 130
            texts.append("".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length)))
        table = {"prompt_text": [text[:-20] for text in texts], "completion_text": [text[-20:] for text in texts]}
        pq.write_table(pa.table(table), folder / f"{part}.parquet")


def _timed(job: dict[str, Any], folder: Path, processes: int) -> dict[str, Any]:
    job_file, out = write_job(folder, "training", UntypedJob(job)), Path(job["out"])
    environment = {**os.environ, **surroundings(processes, 60), "OMP_NUM_THREADS": "4"}
    start = time.time()
    ended = subprocess.run(command(job_file, processes), env=environment)
    wall = time.time() - start
    if ended.returncode:
        sys.exit(f"the training ended with status {ended.returncode}")
    run = json.loads((out / "reports" / "run.json").read_text())
    saved = (out / "adapter" / "adapter_model.safetensors").stat().st_mtime - start
    kept = ("engine", "device", "processes", "steps", "samples", "tokens", "seconds", "tokens_per_s", "micro_batch")
    return {
        **{
            name: run[name]
            for name in (*kept, "micro_batch_tokens", "peak_gpu_gib", "padding_share", "trainable_parameters")
        },
        "saved_after_s": round(saved, 1),
        "process_s": round(wall, 1),
        "speed": [round(entry["tokens_per_s"]) for entry in json.loads((out / "reports" / "speed.json").read_text())],
    }


if __name__ == "__main__":
    main()
