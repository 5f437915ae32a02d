"""One round of solutions: the training problems sampled from the model, graded, and the right ones chosen from."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.grading.grade import grade
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, answer_texts, token_ids
from ernie_pipeline.models.device import Device, choose_device
from ernie_pipeline.models.generation.kept import answer_rows, row_key
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.solutions.attempts import Attempt, attempt, chosen, earlier_attempts, write_attempts, write_kept
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.solutions.metrics import problem_rows, summarise
from ernie_pipeline.solutions.problems import Problem, for_validation, read_problems, seeds_of
from ernie_pipeline.solutions.unusable import check_usable
from ernie_pipeline.store.row_cache import open_rows
from ernie_pipeline.utils.reporter import Reporter

COMPARED = 1000


class Sampled(NamedTuple):
    """`texts`, `tokens` and `ended` of each attempt, `samples` a problem; `end`: the end token's text; `same_tokens`:
    see `_same_tokens`; how they were made."""

    texts: list[str]
    tokens: list[list[int]]
    ended: list[bool]
    end: str
    same_tokens: float
    ran_on: dict[str, str | int | float]


def make(job: SolutionsJob, report: Reporter) -> None:
    """Solve the problems that `job` describes and fill its folder `out`.

    Writes `attempts.parquet` (every attempt of every round), `train.parquet` and `validation.parquet` (the kept
    solutions), `problems.parquet` (a row a problem), `metrics.json`, and below `reports/` what it ran on and its cost.
    Raises `PipelineError` where nothing can be learnt from what came out, see `check_usable`.
    """
    device, settings = choose_device(job.limits, job.execution, report), job.solutions
    problems = read_problems(job.split / "train.parquet", settings.rows, settings.seed)
    sampled = _sample(job, problems, device, report)
    start = time.monotonic()
    attempts = chosen([*earlier_attempts(job.earlier, problems), *_graded(job, problems, sampled)], settings.keep)
    seconds = round(time.monotonic() - start, 1)
    rows = problem_rows(attempts)
    metrics = summarise(attempts, rows)
    report(
        f"graded {metrics['attempts']} attempts in {seconds:.0f} s: {metrics['pass_rate']:.1%} right, "
        f"{metrics['solved']} of {metrics['problems']} problems solved, {metrics['kept']} solutions kept",
        {"pass_rate": metrics["pass_rate"], "solved_share": metrics["solved_share"]},
    )
    check_usable(metrics, settings)
    counts = _write_rows(job, problems, attempts, sampled.end)
    run = {"backend": job.spec.backend, "device": device.description, **sampled.ran_on, "grading_seconds": seconds}
    pq.write_table(pa.Table.from_pylist(rows), job.out / "problems.parquet")
    write_attempts(attempts, job.out)
    (job.out / "reports").mkdir()
    _write_json(job.out / "metrics.json", {**metrics, **counts, "same_tokens_share": sampled.same_tokens})
    _write_json(job.out / "reports" / "run.json", run)


def _sample(job: SolutionsJob, problems: Sequence[Problem], device: Device, report: Reporter) -> Sampled:
    """This round's attempts at the problems: those that are kept already, and the others from the model."""
    spec, settings = job.spec, job.solutions
    start = time.monotonic()
    report(f"loading {spec.base.name}" + (" and the adapter of the round before" if spec.adapter else ""), {})
    loaded = backend_named(spec.backend).load(spec, device.name)
    loading = time.monotonic() - start
    own = token_ids(loaded.tokenizer, [problem.prompt_text for problem in problems])
    prompts = [prompt for prompt in own for _ in range(settings.samples)]
    seeds = seeds_of(problems, settings.samples, settings.seed, settings.rounds)
    report(f"solving {len(problems)} problems, {settings.samples} attempts each", {})
    start = time.monotonic()
    with open_rows(job.rows) as kept:
        known = [kept.get(row_key(*each)) is not None for each in zip(prompts, seeds, strict=True)]
        made = answer_rows(
            loaded,
            prompts,
            Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
            kept,
            rows=device.execution.generation_rows,
            seeds=seeds,
            progress=lambda done, total: report(f"made {done} of {total} attempts", {}),
        )
    seconds = time.monotonic() - start
    parts = [known[at : at + settings.samples] for at in range(0, len(known), settings.samples)]
    reused = sum(map(all, parts))
    report(f"problems sampled {len(problems) - reused}, reused {reused}", {})
    texts, ends = answer_texts(loaded.tokenizer, made.tokens), loaded.end_tokens
    return Sampled(
        texts=texts,
        tokens=made.tokens,
        ended=[bool(tokens) and tokens[-1] in ends for tokens in made.tokens],
        end=loaded.tokenizer.eos_token,
        same_tokens=_same_tokens(loaded.tokenizer, texts, made.tokens),
        ran_on={
            "generation": made.how,
            "problems_sampled": len(problems) - reused,
            "problems_reused": reused,
            "attempts_sampled": made.sampled,
            "attempts_reused": made.reused,
            "generated_tokens": made.generated,
            "generated_tokens_per_s": round(made.generated / seconds, 1),  # with the time that merging took
            "loading_seconds": round(loading, 1),
            "sampling_seconds": round(seconds, 1),
            "gpu_seconds": round(loading + seconds, 1) if device.name != "cpu" else 0.0,
        },
    )


def _graded(job: SolutionsJob, problems: Sequence[Problem], sampled: Sampled) -> list[Attempt]:
    """This round's attempts with their grades."""
    free_memory()
    settings = job.solutions
    asked = [(problem, sample) for problem in problems for sample in range(settings.samples)]
    grades = grade(sampled.texts, [problem.answer for problem, _ in asked], timeout_s=settings.grading_timeout_s)
    made = zip(asked, sampled.texts, sampled.tokens, sampled.ended, grades, strict=True)
    return [
        attempt(problem, settings.rounds, sample, text, tokens, ended, found)
        for (problem, sample), text, tokens, ended, found in made
    ]


def _write_rows(
    job: SolutionsJob, problems: Sequence[Problem], attempts: Sequence[Attempt], end: str
) -> dict[str, int]:
    """Write the kept solutions, apart by problem; how many of either kind."""
    settings, prompts = job.solutions, {problem.row_id: problem.prompt_text for problem in problems}
    solved = {each.question for each in attempts if each.kept}
    apart = for_validation(solved, settings.validation_fraction, settings.seed)
    parts = {
        "train": [each for each in attempts if each.question not in apart],
        "validation": [each for each in attempts if each.question in apart],
    }
    return {
        f"{name}_solutions": write_kept(own, prompts, end, job.out / f"{name}.parquet") for name, own in parts.items()
    }


def _same_tokens(tokenizer: Tokenizer, texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> float:
    """The share of attempts whose text, which is what is trained on, gives the very tokens again that were drawn.

    Of the first `COMPARED` that ended by the tokenizer's end token.
    """
    ended = [i for i, own in enumerate(tokens) if own and own[-1] == tokenizer.eos_token_id][:COMPARED]
    again = token_ids(tokenizer, [texts[i] + tokenizer.eos_token for i in ended]) if ended else []
    return sum(list(tokens[i]) == own for i, own in zip(ended, again, strict=True)) / max(1, len(ended))


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
