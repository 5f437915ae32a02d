"""Where the seconds of a GRPO step go: answers, grades, the trainer's log-probabilities, the gradient, and all else.

    python benchmarks/learning/grpo_step.py [--steps 5] [--answers 128] [--micro-batch N] [--forget]

The demo model on this machine's GPU, or its CPU, with the pipeline's own trainer. `--forget`: nothing is kept from one
sampling to the next, as where merged weights are too large. Nothing is stored but the quantized base.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from runs import LIMITS, LORA, MAX_NEW_TOKENS, Runs, Settings

from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import LoadedModel
from ernie_pipeline.models.checkpoint.tokenizer import prompt_text, token_ids
from ernie_pipeline.models.device import Device, choose_device
from ernie_pipeline.models.generation import again
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.sections import Grpo, Training
from ernie_pipeline.training.config import trainer_config
from ernie_pipeline.training.grpo.plan import grpo_plan
from ernie_pipeline.training.grpo.problems import Problem, set_aside
from ernie_pipeline.training.grpo.trainer import SECONDS, GrpoTrainer
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.resume import Saved

PROBLEMS = 600
EVAL_PROBLEMS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--answers", type=int, default=128, help="of a step, in groups of 8")
    parser.add_argument("--micro-batch", type=int, help="documents computed at a time; all of a step's, if not given")
    parser.add_argument("--forget", action="store_true")
    options = parser.parse_args()
    if options.forget:
        again.SHARE = 0.0
    overrides = ExecutionOverrides(micro_batch=options.micro_batch or options.answers, gradient_checkpointing=False)
    device = choose_device(LIMITS, overrides, lambda line, values: print(line))
    with tempfile.TemporaryDirectory() as home:
        cuda = device.name != "cpu"
        spec = Runs(Settings(Path(home), options.steps, 1, options.answers, 1e-3, cuda), seed=1).spec()
        loaded = backend_named(spec.backend).load(spec, device.name)
    loaded.add_adapter(LORA, 1)
    trainer = _trainer(loaded, device, options.steps, options.answers)
    trainer.fit()
    _print_steps(trainer, device)


def _trainer(loaded: LoadedModel, device: Device, steps: int, answers: int) -> GrpoTrainer:
    settings = Training(
        method="grpo",
        samples_per_step=answers,
        max_steps=steps,
        learning_rate=1e-3,
        optimizer="adamw_torch",
        eval_every=steps,
        log_every=1,
        keep="last",
    )
    grpo = Grpo(max_new_tokens=MAX_NEW_TOKENS, eval_problems=EVAL_PROBLEMS)
    rows = demo_rows(PROBLEMS, seed=1)
    texts = [prompt_text(loaded.tokenizer, row["responses_create_params"]["input"]) for row in rows]
    problems = [
        Problem(str(number), ids, row["expected_answer"])
        for number, (ids, row) in enumerate(zip(token_ids(loaded.tokenizer, texts), rows, strict=True))
    ]
    plan = grpo_plan(settings, grpo, set_aside(problems, EVAL_PROBLEMS, answers // grpo.group))
    return GrpoTrainer(
        loaded,
        trainer_config(settings, steps, device=device.name),
        plan,
        ranks=Ranks(),
        saved=Saved(None, "", Ranks(), _silent),
        report=_silent,
        execution=device.execution,
    )


def _silent(line: str, values: dict[str, object]) -> None:
    """Only the table is shown."""


def _print_steps(trainer: GrpoTrainer, device: Device) -> None:
    names = [name.removesuffix("_s") for name in SECONDS]
    print(f"{device.description}, torch {torch.__version__}; seconds of each step")
    print("".join(f"{name:>12}" for name in ("step", *names, "other", "all", "draws", "sampled/s")))
    before = 0.0
    for entry in trainer.progress.speed:
        parts = [entry[name] for name in SECONDS]
        whole, before = entry["seconds"] - before, entry["seconds"]
        shown = [*parts, whole - sum(parts), whole]
        print(
            f"{entry['step']:12.0f}"
            + "".join(f"{each:12.3f}" for each in shown)
            + f"{entry['draws']:12.0f}{entry['sampled_tokens_per_s']:12.0f}"
        )


if __name__ == "__main__":
    main()
