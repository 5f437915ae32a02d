"""How much work a stage's artifact would be, and how much of that is done already: kept rows and checkpoints."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.cost import Cost
from ernie_pipeline.staleness.suites import PROBLEMS, suite_asset, suite_of
from ernie_pipeline.store.artifacts import Provenance
from ernie_pipeline.store.history import Build
from ernie_pipeline.utils.errors import PipelineError


class Left(NamedTuple):
    """The least and the most units of work that are to be done, of `amount` in all."""

    least: float
    most: float
    amount: float


def answers_left(chain: Chain, wanted: Provenance, like: Cost, build: Build, unsettled: Collection[str]) -> Left:
    """The answers that `wanted`, a stage that works by row, needs and that are not kept; see `count_answers_left` too.

    `unsettled`: its inputs that are to be built; where the split is, or a suite's problems, its rows are taken to be as
    many as those of `build`, whose cost was `like`.
    """
    asked, samples = _rows_asked(wanted.stage, wanted.recipe), _samples(wanted.stage, wanted.recipe)
    read, file = _problems(wanted)
    if read not in unsettled:
        rows = _rows_of(chain.artifact(read).folder / file)
        rows = min(asked, rows) if asked else rows
    else:
        before = _rows_asked(wanted.stage, build["recipe"])
        rows = min(asked or like.rows, like.rows) if not before or like.rows < before else asked or like.rows
    kept = _kept_rows(chain, wanted.stage)
    if kept is None:
        return Left(samples * rows, samples * rows, samples * rows)
    return Left(max(0, samples * rows - _lines(kept)), samples * rows, samples * rows)


def count_answers_left(chain: Chain, wanted: Provenance, left: Left) -> Left:
    """The same, each answer looked up. Takes the seconds that it is to import the tokenizer. Its inputs must stand."""
    kept = _kept_rows(chain, wanted.stage)
    if kept is None:
        return left
    missing = _missing(chain, wanted, kept)
    return Left(missing, missing, left.amount)


def samples_left(chain: Chain, wanted: Provenance, like: Cost, build: Build, unsettled: Collection[str]) -> Left:
    """The samples that a training has to see after its newest checkpoint; see `answers_left`."""
    new, old, rows = wanted.recipe["training"], build["recipe"]["training"], like.rows
    read = next(name for name in ("verified_solutions", "math_split") if name in wanted.inputs)
    if read not in unsettled and wanted.inputs[read] != build["inputs"].get(read):
        rows = _rows_of(chain.artifact(read).folder / "train.parquet")
    amount = like.amount * number_of_samples(new, rows) / max(1, number_of_samples(old, like.rows))
    checkpoints = chain.store.unfinished(wanted.stage, wanted.fingerprint) / "checkpoints"
    done = 0 if unsettled else newest_step(checkpoints) * int(new["samples_per_step"])
    return Left(max(0.0, amount - done), max(0.0, amount - done), amount)


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


def max_new_tokens(stage: str, recipe: Mapping[str, Any]) -> int:
    """The most tokens of an answer, by the recipe of a stage that makes answers, or of a build; 0 where none is."""
    return int(_setting(stage, recipe, "max_new_tokens") or 0)


def _setting(stage: str, recipe: Mapping[str, Any], key: str) -> Any:
    """What a stage's recipe says of how its answers are made; None where it says nothing."""
    if suite := suite_of(stage):
        return recipe.get(f"suites.{suite[0]}.{key}")
    section = next((name for name in ("solutions", "evaluation") if name in recipe), "")
    return recipe[section].get(key) if section else None


def _rows_asked(stage: str, recipe: Mapping[str, Any]) -> int:
    """How many problems are to be answered, 0 for all that there are: of a suite, whose problems are chosen already."""
    return int(_setting(stage, recipe, "rows") or 0)


def _samples(stage: str, recipe: Mapping[str, Any]) -> int:
    """How many answers there are to a problem."""
    samples = _setting(stage, recipe, "samples")
    return int(samples or 0) + 1 if suite_of(stage) else int(samples or 1)


def _problems(wanted: Provenance) -> tuple[str, str]:
    """The stage whose problems are answered, and their file there."""
    if suite := suite_of(wanted.stage):
        return suite_asset(suite[0], PROBLEMS), "problems.parquet"
    return "math_split", "train.parquet" if "solutions" in wanted.recipe else "eval.parquet"


def kept_answers(chain: Chain, stage: str) -> int:
    """How many answers are kept that the stage may use, whatever it is asked."""
    kept = _kept_rows(chain, stage)
    return _lines(kept) if kept else 0


def _kept_rows(chain: Chain, stage: str) -> Path | None:
    """The folder of the stage's set of kept rows, None where there is none yet."""
    try:
        kept = chain.rows(stage)
    except PipelineError:  # of a model that is to be built, no answer is kept
        return None
    return kept.folder if kept and any(kept.folder.glob("*.jsonl")) else None


def _lines(kept: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in kept.glob("*.jsonl"))


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
    read, file = _problems(wanted)
    folder = chain.artifact(read).folder
    if suite := suite_of(wanted.stage):
        from ernie_pipeline.evaluation.suites import attempts

        answers, asked = chain.recipe.suites[suite[0]], attempts.read_problems(folder / file)
        own = [attempts.seed_of(each, answers, sample) for each in asked for sample in range(answers.samples + 1)]
        return [each.prompt_text for each in asked], own
    if "solutions" in wanted.recipe:
        from ernie_pipeline.solutions.problems import read_problems, seeds_of

        settings = chain.recipe.solutions
        problems = read_problems(folder / file, settings.rows, settings.seed)
        seeds = seeds_of(problems, settings.samples, settings.seed, settings.rounds)
        return [problem.prompt_text for problem in problems], seeds
    import pyarrow.parquet as pq

    column = pq.read_table(folder / file, columns=["prompt_text"])["prompt_text"]
    prompts = [str(text) for text in column.to_pylist()[: chain.recipe.evaluation.rows or None]]
    return prompts, [0] * len(prompts)


def _rows_of(file: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)
