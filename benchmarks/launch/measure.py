"""`python benchmarks/launch/measure.py start|sampling ...`: what launching costs, and how sampling is shared.

Starts a Ray cluster on loopback with as many workers of one CPU as are asked for. One JSON line a measurement.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.orchestration.engines import RayConfig
from ernie_pipeline.orchestration.gpu import GpuResource
from ernie_pipeline.recipe.sections import Lora, Quantization, Solutions, Training
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.store.row_cache import KeptRows
from ernie_pipeline.training.job import TrainingJob
from ernie_pipeline_tests.launch.ray.cluster import Cluster
from ernie_pipeline_tests.tiny_split import write_tiny_split


def write_sums(folder: Path, count: int) -> Path:
    """A split of sums in the demo's own words, some of which its model solves."""
    tokenizer, rng = load_tokenizer(str(BASE)), random.Random(0)
    rows = []
    for number in range(count):
        a, b = rng.randint(10, 60), rng.randint(10, 39)
        question = f"State the final answer to the following arithmetic problem: {a} + {b} ="
        text = prompt_text(tokenizer, [{"role": "user", "content": INSTRUCTION + question}])
        row = {"row_id": f"{number:016x}", "kind": "integer", "question": question, "answer": str(a + b)}
        rows.append({**row, "prompt_text": text})
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


def spec(lora: Lora) -> ModelSpec:
    """The demo model in fp32."""
    quantization = Quantization(compute_dtype="float32", double=False)
    return ModelSpec(
        backend="peft", base=BaseCheckpoint(name="demo", checkpoint=str(BASE)), quantization=quantization, lora=lora
    )


def run(place: Path, gpu: GpuResource, work: str, job: BaseModel) -> list[tuple[float, str]]:
    """Do a job; each line of its log with the seconds since it was launched."""
    said: list[tuple[float, str]] = []

    @dg.asset
    def asset(context: dg.AssetExecutionContext, gpu: GpuResource) -> dg.MaterializeResult:
        start = time.monotonic()
        gpu.run(context, work, job, unfinished=place / "unfinished")
        said.append((time.monotonic() - start, "end"))
        return dg.MaterializeResult()

    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize([asset], resources={"gpu": gpu}, instance=instance)
    records = instance.all_logs(result.run_id)
    begin = next(
        r.timestamp for r in records if r.is_dagster_event and r.dagster_event.event_type_value == "STEP_START"
    )
    return [(record.timestamp - begin, record.user_message) for record in records] + said


def resource(launcher: str, address: str, workers: int = 1) -> GpuResource:
    """One thread a process, no GPU."""
    return GpuResource(launcher=launcher, cpu_threads=1, ray=RayConfig(address=address, gpus=0, workers=workers))


def first(said: list[tuple[float, str]], begins: str) -> float:
    """When the first such line came."""
    return round(next(when for when, line in said if line.startswith(begins)), 1)


def start(place: Path, split: Path, launcher: str, address: str) -> dict[str, Any]:
    """Seconds until the job speaks, until its first training step is done, and until the step has its files."""
    training = Training(
        backend="peft", samples_per_step=8, max_steps=2, eval_every=2, optimizer="adamw_torch", log_every=1
    )
    out = place / "out"
    out.mkdir(parents=True)
    job = TrainingJob(spec=spec(Lora(rank=4, alpha=8)), training=training, split=split, out=out)
    said = run(place, resource(launcher, address), "training", job)
    speaks, step = first(said, "no CUDA device"), first(said, "step 1/")
    return {"launcher": launcher, "speaks_s": speaks, "first_step_s": step, "end_s": first(said, "end")}


def sampling(place: Path, split: Path, workers: int, address: str, attempts: int) -> dict[str, Any]:
    """Seconds of a round of solutions, and of loading and sampling alone, from the first worker's start on."""
    out = place / "out"
    out.mkdir(parents=True)
    kept = KeptRows(folder=place / "kept")
    settings = Solutions(samples=attempts, max_new_tokens=64, min_solved=0.0)
    job = SolutionsJob(spec=spec(Lora()), solutions=settings, split=split, out=out, rows=kept)
    said = run(place, resource("ray", address, workers), "solutions", job)
    made = [when for when, line in said if line.startswith("made ")]
    begun = [when for when, line in said if line.startswith("loading ")]
    table = (out / "attempts.parquet").read_bytes()
    return {
        "workers": workers,
        "round_s": first(said, "end"),
        "loading_and_sampling_s": round(made[-1] - begun[0], 1),
        "sha256": hashlib.sha256(table).hexdigest()[:12],
    }


def main() -> None:
    """Measure, a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["start", "sampling"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--attempts", type=int, default=8, help="at each of the 64 problems")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    home = Path(tempfile.mkdtemp(prefix="launch-"))
    os.environ["ERNIE_PIPELINE_HOME"] = str(home / "home")
    if given.what == "start":
        (home / "split").mkdir()
        split = write_tiny_split(home / "split")
    else:
        split = write_sums(home / "split", 64)
    try:
        with Cluster(workers=1 if given.what == "start" else max(given.workers)) as cluster:
            for number in range(given.repeat):
                for each in ["local", "ray"] if given.what == "start" else given.workers:
                    place, load = home / f"{each}-{number}", os.getloadavg()[0]
                    if given.what == "start":
                        found = start(place, split, each, cluster.address)
                    else:
                        found = sampling(place, split, each, cluster.address, given.attempts)
                    print(json.dumps({**found, "load_before": round(load, 1)}), flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
