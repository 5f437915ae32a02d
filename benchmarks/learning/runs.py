"""The runs that are compared: from one base, the same number of updates by each method, for each seed.

Every run is a child process with a job of the pipeline's own (ernie_pipeline/launch), so what is measured is what the
assets do. A run whose result is there is not done again.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ernie_pipeline.demo import BASE
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.torchrun import command
from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.sections import Grpo, Lora, Quantization, Solutions, Training
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.training.job import TrainingJob

METHODS = ("answers", "solutions", "solutions_2", "grpo")
MAX_NEW_TOKENS = 128
LORA = Lora(rank=16, alpha=16)
LIMITS = DeviceLimits(cpu_threads=2, memory_gib=8)
"""Of a run: many share a GPU."""


@dataclass(frozen=True)
class Settings:
    """What all runs have in common. `grpo_answers`: of a step, in groups of 8."""

    home: Path
    updates: int
    samples: int
    grpo_answers: int
    grpo_rate: float
    cuda: bool


class Runs:
    """One seed's runs, in `<home>/<seed>/`."""

    def __init__(self, settings: Settings, seed: int):
        self.settings, self.seed, self.folder = settings, seed, settings.home / f"seed_{seed}"
        self.split = settings.home / "split"

    def spec(self, adapter: str | None = None) -> ModelSpec:
        """The base, perhaps with what a run trained: on CUDA as the real size is held, else as in the demo's recipe."""
        cuda = self.settings.cuda
        return ModelSpec(
            backend="grouped" if cuda else "peft",
            base=BaseCheckpoint(name="demo", checkpoint=str(BASE), version="demo"),
            quantization=Quantization() if cuda else Quantization(compute_dtype="float32", double=False),
            lora=LORA,
            adapter=self.folder / adapter / "out" / "adapter" if adapter else None,
            quantized_bases=self.settings.home / "bases",
        )

    def sample(self, round_: int) -> None:
        """The solutions of a round: the first by the base, the next by what was trained on those before."""
        earlier = self.folder / f"sampled_{round_ - 1}" / "out" if round_ > 1 else None
        job = SolutionsJob(
            spec=self.spec("solutions" if earlier else None),
            solutions=Solutions(
                samples=self.settings.samples, max_new_tokens=MAX_NEW_TOKENS, rounds=round_, seed=self.seed
            ),
            limits=LIMITS,
            split=self.split,
            out=self.folder / f"sampled_{round_}" / "out",
            earlier=earlier,
        )
        self._run(f"sampled_{round_}", "solutions", job)

    def train(self, method: str) -> None:
        """What the demo's recipe does, by `method` and for this many updates."""
        round_ = {"solutions": 1, "solutions_2": 2, "grpo": 1}.get(method)
        grpo = method == "grpo"
        settings = Training(
            backend="grouped" if self.settings.cuda else "peft",
            on="solutions" if round_ else "answers",
            method="grpo" if grpo else "supervised",
            samples_per_step=self.settings.grpo_answers if grpo else 16,
            max_steps=self.settings.updates,
            learning_rate=self.settings.grpo_rate if grpo else 1e-3,
            lr_scheduler="constant_with_warmup" if grpo else "cosine",
            optimizer="adamw_torch",
            eval_every=50 if grpo else 100,
            keep="last",
            seed=self.seed,
        )
        job = TrainingJob(
            spec=self.spec(),
            training=settings,
            grpo=Grpo(max_new_tokens=MAX_NEW_TOKENS, seed=self.seed) if grpo else None,
            execution=_execution(settings.samples_per_step) if self.settings.cuda else ExecutionOverrides(),
            limits=LIMITS,
            split=self.split,
            solutions=self.folder / f"sampled_{round_}" / "out" if round_ else None,
            out=self.folder / method / "out",
        )
        self._run(method, "training", job)

    def measure(self, method: str, sets: Mapping[str, tuple[Path, int]]) -> None:
        """The model that `method` trained, or the "base", on the sets, see measure.py."""
        out = self.folder / f"measured_{method}.json"
        if out.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        task = self.folder / f"measure_{method}.json"
        spec = self.spec(None if method == "base" else method)
        values = {
            "sets": {name: [str(file), n] for name, (file, n) in sets.items()},
            "seed": self.seed,
            "out": str(out),
        }
        task.write_text(json.dumps({"spec": spec.model_dump(mode="json"), **values}))
        script = Path(__file__).with_name("measure.py")
        _child([sys.executable, str(script), str(task)], self.folder / f"measure_{method}.log")

    def _run(self, name: str, work: str, job: BaseModel) -> None:
        folder = self.folder / name
        done = folder / "done.json"
        if done.exists():
            return
        (folder / "out").mkdir(parents=True, exist_ok=True)
        start = time.time()
        _child(command(write_job(folder, work, job), 1), folder / "log")
        done.write_text(json.dumps({"seconds": round(time.time() - start, 1)}))

    def facts(self, name: str) -> dict[str, Any]:
        """What a run reported, and its `seconds` with the start of its process."""
        folder = self.folder / name
        report = json.loads((folder / "out" / "reports" / "run.json").read_text())
        return {**report, **json.loads((folder / "done.json").read_text())}


def _execution(samples: int) -> ExecutionOverrides:
    """A step at once: the profile for 8 GiB is for a model of the real size, 4 documents at a time and each computed
    twice, which for 128 short answers of the demo's are 32 passes of thousands of small kernels."""
    return ExecutionOverrides(micro_batch=samples, gradient_checkpointing=False)


def _child(line: Sequence[str], log: Path) -> None:
    with log.open("w") as file:
        code = subprocess.run(line, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise SystemExit(f"{' '.join(line)} ended with {code}: see {log}\n{log.read_text()[-2000:]}")
