"""Runs the real command line in a process of its own and tells what each asset did."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ASSETS = ("raw_nemotron", "math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation", "registered_model")

QUICK_RECIPE = """
[source]
kind = "demo"
rows = 300
[base_model]
name = "demo"
[split]
eval_fraction = 0.1
[quantization]
compute_dtype = "float32"
double = false
[training]
batch_size = 8
accumulation = 1
max_steps = 4
learning_rate = 3e-3
optimizer = "adamw_torch"
gradient_checkpointing = false
eval_every = 2
log_every = 1
[evaluation]
rows = 12
batch_size = 12
max_new_tokens = 12
[registry]
model_name = "quick"
"""
"""The whole chain in half a minute; four steps teach nothing, so the gate stays shut."""


@dataclass
class Run:
    """What one `dagster asset materialize` did."""

    status: int
    output: str
    seconds: float
    peak_gib: float = 0.0
    materialized: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)

    @property
    def failure(self) -> str:
        """The sentence with which the first step failed."""
        found = re.search(r"dagster\._core\.definitions\.events\.Failure: (.*)", self.output)
        return found[1] if found else ""


def materialize(home: Path, *, recipe: str = "demo", select: str = "*", **environment: str) -> Run:
    """`dagster asset materialize --select SELECT -m ernie_pipeline.definitions` with a throw-away instance."""
    process = start(home, recipe=recipe, select=select, **environment)
    return finish(process)


def start(home: Path, *, recipe: str = "demo", select: str = "*", **environment: str) -> "subprocess.Popen[str]":
    """The same, not waited for."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_", "MLFLOW_", "OMP_"))}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "dagster",
            "asset",
            "materialize",
            "--select",
            select,
            "-m",
            "ernie_pipeline.definitions",
        ],
        env=variables
        | {"ERNIE_PIPELINE_HOME": str(home), "ERNIE_PIPELINE_RECIPE": recipe, "HF_HUB_OFFLINE": "1"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Run:
    """Wait for it, watching the memory of all its processes together."""
    began, peak, done = time.monotonic(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], _family_gib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    return Run(
        status=process.returncode,
        output=output,
        seconds=time.monotonic() - began,
        peak_gib=peak[0],
        materialized=re.findall(r"ASSET_MATERIALIZATION - Materialized value (\w+)", output),
        reused=re.findall(r"reused: (\w+) \w+ from", output),
    )


def _family_gib(pid: int) -> float:
    """Memory of a process and its children; pages that they share count once (proportional set size)."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in family:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
        except psutil.Error:
            continue
    return total / 2**30


def artifacts(home: Path) -> dict[str, str]:
    """Every artifact's folder and when it was last changed: to tell that nothing was written."""
    return {str(path.relative_to(home)): str(path.stat().st_mtime_ns) for path in sorted(home.glob("store/*/*/*"))}


def aside(home: Path) -> list[Path]:
    """Half-written artifacts."""
    return list(home.glob("store/*/.*"))
