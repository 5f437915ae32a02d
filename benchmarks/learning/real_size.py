"""What learning costs at the real size: grading, supervised steps on solutions, and GRPO steps, on one GPU.

    python benchmarks/learning/real_size.py CHECKPOINT grading supervised
    python benchmarks/learning/real_size.py CHECKPOINT grpo

CHECKPOINT is a folder with ERNIE-4.5-21B-A3B's shapes; random weights do (benchmarks/full_size/make_checkpoint.py):
speed and memory are real on them. As nothing is right there, random text is taken for the kept solutions, of log-normal
length with a median of 250 tokens, and GRPO's rewards are drawn by lot; its answers all have --new-tokens, for none
ends by itself. One RESULT line for each phase. Sampling is measured by benchmarks/evaluation/generate.py.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ernie_pipeline.grading.grade import Grader
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import LoadedModel
from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.models.device import Device, DeviceLimits, choose_device
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.sections import Grpo, Lora, Quantization, Training
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.training.config import trainer_config
from ernie_pipeline.training.grpo.plan import grpo_plan
from ernie_pipeline.training.grpo.problems import Problem, set_aside
from ernie_pipeline.training.grpo.rewards import Reward, reward
from ernie_pipeline.training.grpo.trainer import GrpoTrainer
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.resume import Saved
from ernie_pipeline.training.rows import Row
from ernie_pipeline.training.schedule.order import Plan
from ernie_pipeline.training.trainer import AdapterTrainer

PROMPT_TOKENS, MEDIAN, SIGMA, MOST = (100, 130), 250, 0.8, 2048
EVAL_PROBLEMS = 16
GIB = 2**30


def main() -> None:
    asked = _options()
    if "grading" in asked.phases:
        _grading(asked.problems * asked.samples)
    training = [phase for phase in asked.phases if phase != "grading"]
    if not training:
        return
    device = choose_device(DeviceLimits(), ExecutionOverrides(), lambda line, values: print(line, flush=True))
    loaded = _loaded(asked)
    for phase in training:
        torch.cuda.reset_peak_memory_stats()
        (_supervised if phase == "supervised" else _grpo)(loaded, device, asked)


def _grading(number: int) -> None:
    """Texts as long as solutions, two thirds with a result in a box, half of these right."""
    rng = random.Random(0)
    references = [str(rng.randint(1, 9999)) for _ in range(number)]
    texts = []
    for reference in references:
        words = " ".join(f"{rng.randint(1, 99)} + x^{rng.randint(2, 9)} = \\frac{{y}}{{2}}" for _ in range(20))
        texts.append(words + rng.choice(["", f" so \\boxed{{{reference}}}", f" so \\boxed{{{int(reference) + 1}}}"]))
    with Grader(timeout_s=5.0) as grader:
        grader.grade(texts[:64], references[:64])  # its workers start
        start = time.time()
        grades = grader.grade(texts, references)
        seconds = time.time() - start
    _tell("grading", answers=number, seconds=round(seconds, 2), right=sum(each.outcome == "correct" for each in grades))


def _loaded(asked: argparse.Namespace) -> LoadedModel:
    checkpoint, start = asked.checkpoint.resolve(), time.time()
    spec = ModelSpec(
        backend="grouped",
        base=BaseCheckpoint(
            name=str(checkpoint),
            checkpoint=str(checkpoint),
            version=checkpoint_version(checkpoint, remembered_sha256),
        ),
        quantization=Quantization(),
        quantized_bases=asked.home / "store" / ".bases",
    )
    loaded = backend_named(spec.backend).load(spec, "cuda")
    loaded.add_adapter(Lora(), seed=0)
    gib = round(torch.cuda.memory_allocated() / GIB, 1)
    _tell("loaded", seconds=round(time.time() - start, 1), allocated_gib=gib)
    return loaded


def _supervised(loaded: LoadedModel, device: Device, asked: argparse.Namespace) -> None:
    rng, vocabulary = random.Random(1), _vocabulary(asked.checkpoint)
    settings = Training(
        on="solutions", samples_per_step=32, max_steps=100, learning_rate=1e-5, eval_every=100, keep="last"
    )
    rows = [_row(rng, vocabulary) for _ in range(32 * 100)]
    plan = Plan(settings, rows, [_row(rng, vocabulary) for _ in range(EVAL_PROBLEMS)])
    trainer = AdapterTrainer(
        loaded,
        trainer_config(settings, len(plan.steps), device=device.name),
        plan,
        ranks=Ranks(),
        saved=Saved(None, "", Ranks(), _silent),
        report=_silent,
        execution=device.execution,
    )
    start = time.time()
    trainer.fit()
    tokens = sum(len(row.ids) for row in rows)
    _tell("supervised", steps=100, tokens=tokens, tokens_per_s=round(trainer.progress.tokens_per_s, 1), **_since(start))


def _row(rng: random.Random, vocabulary: int) -> Row:
    prompt = rng.randint(*PROMPT_TOKENS)
    completion = max(1, min(MOST, round(MEDIAN * rng.lognormvariate(0, SIGMA))))
    return Row(_ids(rng, vocabulary, prompt + completion), prompt)


def _grpo(loaded: LoadedModel, device: Device, asked: argparse.Namespace) -> None:
    rng, vocabulary = random.Random(2), _vocabulary(asked.checkpoint)
    settings = Training(
        method="grpo",
        samples_per_step=asked.answers,
        max_steps=asked.steps,
        learning_rate=1e-5,
        eval_every=asked.steps,
        log_every=1,
        keep="last",
    )
    grpo = Grpo(
        max_new_tokens=asked.new_tokens, eval_problems=EVAL_PROBLEMS, max_mismatch_kl=1e6, replay_routing=asked.replay
    )
    problems = [Problem(str(i), _ids(rng, vocabulary, rng.randint(*PROMPT_TOKENS)), "1") for i in range(400)]
    plan = grpo_plan(settings, grpo, set_aside(problems, EVAL_PROBLEMS, asked.answers // grpo.group))

    def by_lot(answers: Sequence[str], ended: Sequence[bool], references: Sequence[str]) -> list[Reward]:
        return [reward(rng.random() < 0.7, rng.random() < 0.5, grpo.format_reward) for _ in answers]

    trainer = GrpoTrainer(
        loaded,
        trainer_config(settings, asked.steps, device=device.name),
        plan,
        ranks=Ranks(),
        saved=Saved(None, "", Ranks(), _silent),
        report=_silent,
        execution=device.execution,
        judge=by_lot,
    )
    start = time.time()
    trainer.fit()
    shown = ("sampling_s", "logprobs_s", "training_s", "sampled_tokens_per_s", "seconds")
    speed = [{name: round(entry[name], 2) for name in shown if name in entry} for entry in trainer.progress.speed]
    curve = trainer.progress.curve
    watched = {name: [entry[name] for entry in curve if name in entry] for name in ("mismatch_kl", "routed_elsewhere")}
    _tell("grpo", steps=asked.steps, answers=asked.answers, new_tokens=asked.new_tokens, **_since(start), **watched)
    for entry in speed:
        print(json.dumps(entry), flush=True)


def _vocabulary(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "config.json").read_text())["vocab_size"])


def _ids(rng: random.Random, vocabulary: int, number: int) -> list[int]:
    return [rng.randrange(10, vocabulary) for _ in range(number)]


def _since(start: float) -> dict[str, float | str]:
    return {
        "seconds": round(time.time() - start, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 1),
        "device": torch.cuda.get_device_name(),
    }


def _silent(line: str, values: dict[str, object]) -> None:
    """Only the results are shown."""


def _tell(phase: str, **values: object) -> None:
    print("RESULT " + json.dumps({"phase": phase, **values}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("phases", nargs="+", choices=["grading", "supervised", "grpo"])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=4, help="answers to each that are graded")
    parser.add_argument("--steps", type=int, default=10, help="of GRPO")
    parser.add_argument("--answers", type=int, default=128, help="of a GRPO step, in groups of 8")
    parser.add_argument("--new-tokens", type=int, default=512, help="of each of GRPO's answers")
    parser.add_argument("--no-replay", dest="replay", action="store_false", help="GRPO by the trainer's own routing")
    home = Path(tempfile.gettempdir()) / "ernie-benchmark"
    parser.add_argument("--home", type=Path, default=home, help="a pipeline's home, for its quantized base")
    return parser.parse_args()


if __name__ == "__main__":
    main()
