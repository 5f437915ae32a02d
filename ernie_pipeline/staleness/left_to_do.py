"""How much work a stage's artifact would be, and how much of that is done already: kept rows and checkpoints."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.cost import Cost
from ernie_pipeline.store.artifacts import Provenance
from ernie_pipeline.store.history import Build
from ernie_pipeline.utils.errors import PipelineError


class Left(NamedTuple):
    """The least and the most units of work that are to be done, of `amount` in all."""

    least: float
    most: float
    amount: float


def answers_left(chain: Chain, wanted: Provenance, like: Cost, settled: bool) -> Left:
    """The answers that `wanted`, a stage that works by row, needs and that are not kept.

    `settled`: whether its inputs stand; else its rows are taken to be as many as those of `like`.
    """
    name, rows = wanted.stage, like.rows
    solving = "solutions" in wanted.recipe
    asked = int(wanted.recipe["solutions" if solving else "evaluation"]["rows"])
    samples = int(wanted.recipe["solutions"]["samples"]) if solving else 1
    if settled:
        rows = _rows_of(chain.artifact("math_split").folder / ("train.parquet" if solving else "eval.parquet"))
    amount = samples * (min(asked, rows) if asked else rows)
    try:
        kept = chain.rows(name)
    except PipelineError:  # of a model that is to be built, no answer is kept
        return Left(amount, amount, amount)
    if kept is None or not any(kept.folder.glob("*.jsonl")):
        return Left(amount, amount, amount)
    if not settled:
        return Left(0, amount, amount)
    missing = _missing(chain, wanted, kept.folder)
    return Left(missing, missing, amount)


def samples_left(chain: Chain, wanted: Provenance, like: Cost, build: Build, settled: bool) -> Left:
    """The samples that a training has to see after its newest checkpoint; `build`, of the cost `like`, saw some too."""
    new, old, rows = wanted.recipe["training"], build["recipe"]["training"], like.rows
    read = next((name for name in ("verified_solutions", "math_split") if name in wanted.inputs), "")
    if settled and wanted.inputs[read] != build["inputs"].get(read):
        rows = _rows_of(chain.artifact(read).folder / "train.parquet")
    amount = like.amount * number_of_samples(new, rows) / max(1, number_of_samples(old, like.rows))
    steps = newest_step(chain.store.unfinished(wanted.stage, wanted.fingerprint) / "checkpoints") if settled else 0
    left = max(0.0, amount - steps * int(new["samples_per_step"]))
    return Left(left, left, amount)


def number_of_samples(training: Mapping[str, Any], rows: int) -> int:
    """As training/schedule/order.py has it, whose imports take seconds. `training`: the recipe's section."""
    if training["max_samples"]:
        return int(training["max_samples"])
    if training["max_steps"]:
        return int(training["max_steps"] * training["samples_per_step"])
    return math.ceil(float(training["epochs"]) * rows)


def newest_step(checkpoints: Path) -> int:
    """The step of the newest checkpoint in a folder, by its name, 0 where there is none."""
    steps = [path.name.rpartition("-")[2] for path in checkpoints.glob("checkpoint-*")]
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def _missing(chain: Chain, wanted: Provenance, kept: Path) -> int:
    """How many different answers are asked for that are not in the set of kept ones."""
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
    from ernie_pipeline.models.generation.kept import row_key  # seconds of imports, where rows are kept
    from ernie_pipeline.models.spec import base_checkpoint
    from ernie_pipeline.store.row_cache import read_rows

    prompts, seeds = _asked(chain, wanted)
    base = base_checkpoint(chain.recipe.base_model, wanted.inputs["base_model"])
    ids = token_ids(load_tokenizer(base.checkpoint, base.revision), prompts)
    known, samples = read_rows(kept), len(seeds) // max(1, len(prompts))
    keys = {row_key(ids[at // samples], seed) for at, seed in enumerate(seeds)}
    return sum(key not in known for key in keys)


def _asked(chain: Chain, wanted: Provenance) -> tuple[list[str], list[int]]:
    """The prompts' texts, and the seeds of their answers, those of one prompt next to each other."""
    folder = chain.artifact("math_split").folder
    if "solutions" in wanted.recipe:
        from ernie_pipeline.solutions.problems import read_problems, seeds_of

        settings = chain.recipe.solutions
        problems = read_problems(folder / "train.parquet", settings.rows, settings.seed)
        seeds = seeds_of(problems, settings.samples, settings.seed, settings.rounds)
        return [problem.prompt_text for problem in problems], seeds
    import pyarrow.parquet as pq

    column = pq.read_table(folder / "eval.parquet", columns=["prompt_text"])["prompt_text"]
    prompts = [str(text) for text in column.to_pylist()[: chain.recipe.evaluation.rows or None]]
    return prompts, [0] * len(prompts)


def _rows_of(file: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)
