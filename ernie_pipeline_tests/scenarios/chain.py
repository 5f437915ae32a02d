"""Runs the real command line in a process of its own and tells what each asset did."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from ernie_pipeline_tests.scenarios.homes import variables as variables_of

BELOW_SPLIT = ("qlora_adapter", "base_evaluation", "adapter_evaluation", "registered_model")
"""What reads the split, where the recipe asks for no solutions."""
ASSETS = ("raw_nemotron", "math_split", "verified_solutions", *BELOW_SPLIT)

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
samples_per_step = 8
max_steps = 2
learning_rate = 3e-3
optimizer = "adamw_torch"
eval_every = 2
log_every = 1
[evaluation]
rows = 12
max_new_tokens = 12
[registry]
model_name = "quick"
"""
"""The whole chain in half a minute; two steps teach nothing, so the gate stays shut."""


def rows(numbers: Iterable[int]) -> list[str]:
    """Lines of a source: a sum for each number."""
    return [row(f"What is {n} + {n}?", str(2 * n)) for n in numbers]


def row(question: str, expected_answer: str) -> str:
    """A line of a source."""
    messages = [{"role": "user", "content": f"Box it.\n\n{question}"}]
    parameters = {"input": messages}
    return json.dumps({"responses_create_params": parameters, "question": question, "expected_answer": expected_answer})


def write_rows(file: Path, lines: list[str]) -> str:
    """Write a source; its path, for ERNIE_PIPELINE_SOURCE."""
    file.write_text("\n".join(lines) + "\n")
    return str(file)


IN_PROCESS = {"execution": {"config": {"in_process": {}}}}
"""Run config: all steps in one process. The default, a process a step, takes seconds more for each of them."""


@dataclass(frozen=True)
class Home:
    """A home with one artifact of each stage that is asked for."""

    home: Path

    def artifact(self, stage: str) -> Path:
        """The folder of the stage's only artifact."""
        [folder] = (self.home / "store" / stage).glob("[!.]*")
        return folder

    def json(self, stage: str, file: str) -> Any:
        """What a file of it says."""
        return json.loads((self.artifact(stage) / file).read_text())


@dataclass
class Run:
    """What one command did."""

    status: int
    output: str
    seconds: float
    peak_gib: float = 0.0
    materialized: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)

    @property
    def built(self) -> list[str]:
        """The assets whose work was done."""
        return [name for name in self.materialized if name not in self.reused]

    @property
    def failure(self) -> str:
        """The sentence with which the first step failed."""
        found = re.search(r"dagster\._core\.definitions\.events\.Failure: (.*)", self.output)
        return found[1] if found else ""


@dataclass
class Started:
    """A command under way. Its output goes to a file, so that it never waits for a reader."""

    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    began: float

    @property
    def family(self) -> list[psutil.Process]:
        """Its processes: itself, its steps, their trainers."""
        try:
            return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        except psutil.Error:
            return []


def materialize(home: Path, *, memory: bool = False, **keywords: Any) -> Run:
    """`dagster asset materialize` with a throw-away instance, see `start`. `memory`: watch how much it takes."""
    return finish(start(home, **keywords), memory=memory)


def start(
    home: Path,
    *,
    recipe: str | Path = "demo",
    select: str = "*",
    config: dict[str, Any] | None = None,
    ahead: Path | None = None,
    within: Sequence[str] = (),
    **environment: str,
) -> Started:
    """The same, not waited for. `ahead`: a folder that goes ahead of all others on the path of Python's modules."""
    command = ["-m", "dagster", "asset", "materialize", "--select", select, "-m", "ernie_pipeline.definitions"]
    configured = ["--config-json", json.dumps(config)] if config else []
    return start_python([*command, *configured], home, recipe, ahead, environment, within)


def refresh(home: Path, *, recipe: str | Path = "demo", ahead: Path | None = None, **environment: str) -> Run:
    """`python -m ernie_pipeline refresh`."""
    return finish(start_python(["-m", "ernie_pipeline", "refresh"], home, recipe, ahead, environment))


@dataclass(frozen=True)
class Planned:
    """What `python -m ernie_pipeline plan --json` said. `todo`: "state: why" of each asset that is not fresh."""

    status: int
    todo: dict[str, str]
    values: dict[str, Any]

    def asset(self, name: str) -> dict[str, Any]:
        """All that it said of one asset."""
        return next(asset for asset in self.values["assets"] if asset["asset"] == name)


FRESH: tuple[int, dict[str, str]] = (0, {})


def plan(home: Path, *, recipe: str | Path = "demo", ahead: Path | None = None, **environment: str) -> Planned:
    """`python -m ernie_pipeline plan --json`."""
    run = finish(start_python(["-m", "ernie_pipeline", "plan", "--json"], home, recipe, ahead, environment))
    assert run.status in (0, 3) or '"refused"' in run.output, run.output
    values = json.loads(run.output)
    assert (run.status == 1) == any(a["refused"] for a in values["assets"]), run.output
    todo = {a["asset"]: f"{a['state']}: {'; '.join(a['reasons'])}" for a in values["assets"] if a["state"] != "fresh"}
    return Planned(run.status, todo, values)


def ask(
    arguments: Sequence[str], home: Path, *, recipe: str | Path = "demo", ahead: Path | None = None
) -> tuple[int, dict[str, Any]]:
    """The exit status of a command of `python -m ernie_pipeline`, and what it printed as JSON."""
    run = finish(start_python(["-m", "ernie_pipeline", *arguments, "--json"], home, recipe, ahead, {}))
    text = run.output
    return run.status, json.loads(text[text.index("\n{\n") if "\n{\n" in text else text.index("{") :])


def start_python(
    arguments: list[str],
    home: Path,
    recipe: str | Path,
    ahead: Path | None,
    environment: dict[str, str],
    within: Sequence[str] = (),
) -> Started:
    """Python in a session of its own and outside the checkout, whose package would come ahead of `ahead`.

    `within`: a command that runs it in a place of its own.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_", "MLFLOW_", "OMP_"))}
    path = os.pathsep.join(filter(None, [str(ahead or ""), variables.get("PYTHONPATH", "")]))
    log = tempfile.TemporaryFile()  # noqa: SIM115, `finish` closes it
    process = subprocess.Popen(
        [*within, sys.executable, *arguments],
        cwd=home.parent,
        env=variables
        | {**variables_of(home), "ERNIE_PIPELINE_RECIPE": str(recipe), "HF_HUB_OFFLINE": "1"}
        | {"PYTHONPATH": path}
        | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Started(process, log, time.monotonic())


def finish(started: Started, memory: bool = False) -> Run:
    """Wait for it; with `memory`, watch that of all its processes together."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(2.0):  # to ask the kernel for shared pages is costly
            peak[0] = max(peak[0], _gib(started.family))

    watcher = threading.Thread(target=watch)
    if memory:
        watcher.start()
    status = started.process.wait()
    seconds = time.monotonic() - started.began
    done.set()
    if memory:
        watcher.join()
    with started.log as log:
        log.seek(0)
        output = log.read().decode()
    return Run(
        status=status,
        output=output,
        seconds=seconds,
        peak_gib=peak[0],
        materialized=re.findall(r"ASSET_MATERIALIZATION - Materialized value (\w+)", output),
        reused=re.findall(r"reused: (\w+) \w+ from", output),
    )


def _gib(family: list[psutil.Process]) -> float:
    """Memory of these processes; pages that they share count once (proportional set size)."""
    total = 0
    for process in family:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
        except psutil.Error:
            continue
    return total / 2**30


def artifacts(home: Path) -> dict[str, str]:
    """Every artifact's folder and when it was last changed: to tell that nothing was written."""
    files = [path for stage in sorted(home.glob("store/[!.]*")) for path in sorted(stage.rglob("*"))]
    return {str(path.relative_to(home)): str(path.stat().st_mtime_ns) for path in files}


def left_half_written(home: Path, stage: str = "*") -> list[Path]:
    """Half-written artifacts."""
    return [path for path in home.glob(f"store/{stage}/.*") if path.parent.name[0] != "."]


def builds(home: Path) -> dict[str, int]:
    """How often each stage was built in this home."""
    return {log.stem: len(log.read_text().splitlines()) for log in sorted(home.glob("store/.builds/*.jsonl"))}
