"""One model on some sets of problems: its greedy answer, and several sampled ones. Started by compare.py.

python benchmarks/learning/measure.py TASK.json
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel
from runs import LIMITS, MAX_NEW_TOKENS

from ernie_pipeline.grading.grade import Grade, Grader, is_strict
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, token_ids
from ernie_pipeline.models.device import choose_device
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides


class Task(BaseModel):
    """`sets`: Parquet files (prompt_text, answer) by name, and how often each of their problems is sampled."""

    spec: ModelSpec
    sets: dict[str, tuple[Path, int]]
    seed: int
    out: Path


def main() -> None:
    task = Task.model_validate_json(Path(sys.argv[1]).read_text())
    device = choose_device(LIMITS, ExecutionOverrides(), lambda line, values: None)
    loaded = backend_named(task.spec.backend).load(task.spec, device.name)
    rows, found = device.execution.generation_rows, {}
    with Grader(timeout_s=5.0) as grader:
        for name, (file, samples) in task.sets.items():
            table = pq.read_table(file, columns=["prompt_text", "answer"])
            prompts = token_ids(loaded.tokenizer, table["prompt_text"].to_pylist())
            found[name] = _measured(loaded, grader, prompts, table["answer"].to_pylist(), samples, task.seed, rows)
    task.out.write_text(json.dumps(found))


def _measured(
    loaded: LoadedModel,
    grader: Grader,
    prompts: Sequence[list[int]],
    references: Sequence[str],
    samples: int,
    seed: int,
    rows: int,
) -> dict[str, list[bool] | list[list[bool]]]:
    """`greedy` and `lenient` [problems]: whether the greedy answer is right, boxed and ended, and whether it is right;
    `sampled` [problems, samples]; `majority` [problems]: whether the commonest boxed result of these is right."""
    once = list(range(len(prompts)))
    often = [i for i in once for _ in range(samples)]
    greedy = _graded(loaded, grader, prompts, references, once, Sampling(MAX_NEW_TOKENS), None, rows)
    seeds = [seed * 1_000_003 + number for number in range(len(often))]
    drawn = _graded(loaded, grader, prompts, references, often, Sampling(MAX_NEW_TOKENS, 1.0), seeds, rows)
    parts = [drawn[at : at + samples] for at in range(0, len(drawn), samples)] if samples else []
    return {
        "greedy": [is_strict(*each) for each in greedy],
        "lenient": [grade.outcome == "correct" for grade, _ in greedy],
        "sampled": [[is_strict(*each) for each in part] for part in parts],
        "majority": [_majority(part) for part in parts],
    }


def _graded(
    loaded: LoadedModel,
    grader: Grader,
    prompts: Sequence[list[int]],
    references: Sequence[str],
    asked: Sequence[int],
    sampling: Sampling,
    seeds: Sequence[int] | None,
    rows: int,
) -> list[tuple[Grade, bool]]:
    """Each answer's grade, and whether it ended by itself."""
    if not asked:
        return []
    made = loaded.generate([prompts[i] for i in asked], sampling, rows=rows, seeds=seeds).tokens
    ended = [bool(tokens) and tokens[-1] in loaded.end_tokens for tokens in made]
    grades = grader.grade(answer_texts(loaded.tokenizer, made), [references[i] for i in asked])
    return list(zip(grades, ended, strict=True))


def _majority(part: Sequence[tuple[Grade, bool]]) -> bool:
    """Of several answers, whether the result that most of the boxed ones have is right; the first of equals."""
    results = [grade for grade, ended in part if grade.boxed and ended and grade.extracted is not None]
    if not results:
        return False
    commonest, _ = Counter(grade.extracted for grade in results).most_common(1)[0]
    return next(grade for grade in results if grade.extracted == commonest).outcome == "correct"


if __name__ == "__main__":
    main()
