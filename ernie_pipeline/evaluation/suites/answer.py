"""One model on a suite: its greedy and its sampled answers, graded, and what they come to."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ernie_pipeline.evaluation.suites.attempts import (
    GREEDY,
    Attempt,
    Problem,
    attempt,
    read_problems,
    seed_of,
    write_attempts,
)
from ernie_pipeline.evaluation.suites.figures import summarise
from ernie_pipeline.evaluation.suites.job import SuiteJob
from ernie_pipeline.grading.grade import grade
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import Generates, Generation, Sampling
from ernie_pipeline.models.checkpoint.context import check_context
from ernie_pipeline.models.checkpoint.ends import checkpoint_end_tokens
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, answer_texts, load_tokenizer, token_ids
from ernie_pipeline.models.device import Device, choose_device
from ernie_pipeline.models.generation.kept import Answered, answer_rows, row_key
from ernie_pipeline.models.generation.vllm.generator import generator_of
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.store.row_cache import RowCache, open_rows
from ernie_pipeline.utils.json_file import write_json
from ernie_pipeline.utils.reporter import Reporter


class Asked(NamedTuple):
    """One attempt that is asked for: of which problem, its number, the prompt (token ids) and the seed."""

    problem: Problem
    sample: int
    prompt: list[int]
    seed: int


def answer(job: SuiteJob, report: Reporter) -> None:
    """Answer the suite that `job` describes and fill its folder `out`.

    Writes `attempts.parquet` (every answer with its grade), `metrics.json` (see `figures.summarise`), `model.json` (by
    which backend it was computed), and below `reports/` what it ran on and its cost.
    """
    device = choose_device(job.limits, job.execution, report)
    tokenizer = load_tokenizer(job.spec.base.checkpoint, job.spec.base.revision)
    asked = _asked(job, tokenizer)
    if job.part:
        _answer_part(job, asked, device, report)
        return
    made, run = _answers(job, asked, device, report)
    free_memory()
    start = time.monotonic()
    attempts = _graded(job, asked, tokenizer, made)
    seconds = round(time.monotonic() - start, 1)
    metrics = summarise(attempts)
    told = metrics["greedy"]
    report(
        f"suite {job.name}: greedy {told['value']:.1%} ({told['low']:.1%} to {told['high']:.1%})"
        + "".join(f", {name}@{k} {value:.1%}" for name, k, value in _of_all_samples(metrics)),
        {"accuracy": told["value"]},
    )
    write_attempts(attempts, job.out)
    (job.out / "reports").mkdir()
    write_json(job.out / "metrics.json", metrics)
    write_json(job.out / "model.json", {"backend": job.spec.backend})
    ran_on = {"backend": job.spec.backend, "device": device.description, **run, "grading_seconds": seconds}
    write_json(job.out / "reports" / "run.json", ran_on)


def _of_all_samples(metrics: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Of each kind of sampled figure its name, k and value for the largest k."""
    found = [(name, [*metrics[f"{name}_at"].items()]) for name in ("avg", "pass", "maj")]
    return [(name, own[-1][0], own[-1][1]["value"]) for name, own in found if own]


def _asked(job: SuiteJob, tokenizer: Tokenizer) -> list[Asked]:
    """Every attempt, those at one problem next to each other, the greedy one first."""
    problems, answers = read_problems(job.problems / "problems.parquet"), job.answers
    prompts, base = token_ids(tokenizer, [problem.prompt_text for problem in problems]), job.spec.base
    key = f"suites.{job.name}.max_new_tokens"
    check_context(base.checkpoint, base.revision, prompts, answers.max_new_tokens, key)
    return [
        Asked(problem, sample, prompt, seed_of(problem, answers, sample))
        for problem, prompt in zip(problems, prompts, strict=True)
        for sample in range(GREEDY, answers.samples + 1)
    ]


def _answer_part(job: SuiteJob, asked: Sequence[Asked], device: Device, report: Reporter) -> None:
    """Make and keep the attempts of one part. Who answers when all parts are kept finds them."""
    assert job.part
    with open_rows(job.rows) as kept:
        own = [each for each in asked if job.part.has(row_key(each.prompt, each.seed))]
        report(f"{job.part}: {sum(not _is_kept(each, kept) for each in own)} attempts to make", {})
        _answered(job, own, kept, _Model(job, device, report), report)


def _answers(
    job: SuiteJob, asked: Sequence[Asked], device: Device, report: Reporter
) -> tuple[list[list[int]], dict[str, Any]]:
    """The tokens of each attempt, and how they were made and at what cost."""
    per_problem, model = job.answers.samples + 1, _Model(job, device, report)
    with open_rows(job.rows) as kept:
        known = [_is_kept(each, kept) for each in asked]
        whole = [all(known[at : at + per_problem]) for at in range(0, len(known), per_problem)]
        report(
            f"problems sampled {len(whole) - sum(whole)}, reused {sum(whole)}: {known.count(False)} attempts to make, "
            f"{sum(known)} kept",
            {},
        )
        start = time.monotonic()
        tokens, made = _answered(job, asked, kept, model, report)
    sampling = time.monotonic() - start - model.loading if model.loading else 0.0
    generated = sum(each.generated for each in made)
    return tokens, {
        "generation": next((each.how for each in made if each.sampled), "kept answers"),
        "problems_sampled": len(whole) - sum(whole),
        "problems_reused": sum(whole),
        "attempts_sampled": sum(each.sampled for each in made),
        "attempts_reused": sum(each.reused for each in made),
        "generated_tokens": generated,
        "generated_tokens_per_s": round(generated / sampling, 1) if generated else 0.0,
        "loading_seconds": round(model.loading, 1),
        "sampling_seconds": round(sampling, 1),
    }


def _is_kept(asked: Asked, kept: RowCache) -> bool:
    return kept.get(row_key(asked.prompt, asked.seed)) is not None


def _answered(
    job: SuiteJob, asked: Sequence[Asked], kept: RowCache, model: "_Model", report: Reporter
) -> tuple[list[list[int]], list[Answered]]:
    """The tokens of each attempt: first of all that are greedy, then of all that are sampled."""
    settings, tokens = job.answers, list[list[int]]([[]] * len(asked))
    sampled = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
    made = list[Answered]()
    for what, is_greedy, sampling in (("greedy", True, Sampling(settings.max_new_tokens)), ("sampled", False, sampled)):
        places = [i for i, each in enumerate(asked) if (each.sample == GREEDY) == is_greedy]
        if not places:
            continue

        def tell(done: int, total: int, what: str = what) -> None:
            report(f"{what}: {done} of {total} answers", {})

        answers = answer_rows(
            model,
            [asked[i].prompt for i in places],
            sampling,
            kept,
            rows=model.device.execution.generation_rows,
            seeds=[asked[i].seed for i in places],
            progress=tell,
        )
        made.append(answers)
        for i, own in zip(places, answers.tokens, strict=True):
            tokens[i] = own
    return tokens, made


def _graded(job: SuiteJob, asked: Sequence[Asked], tokenizer: Tokenizer, tokens: Sequence[list[int]]) -> list[Attempt]:
    texts, ends = answer_texts(tokenizer, tokens), checkpoint_end_tokens(tokenizer, job.spec.base)
    grades = grade(texts, [each.problem.answer for each in asked], timeout_s=job.answers.grading_timeout_s)
    return [
        attempt(each.problem, each.sample, text, own, bool(own) and own[-1] in ends, found)
        for each, text, own, found in zip(asked, texts, tokens, grades, strict=True)
    ]


class _Model:
    """The job's model as what answers: loaded when the first answer is not kept. `loading`: the seconds it took."""

    def __init__(self, job: SuiteJob, device: Device, report: Reporter):
        self.device, self.loading = device, 0.0
        self._job, self._report = job, report
        self._generator: Generates | None = None

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, **options: Any) -> Generation:
        """See `Generates.generate`."""
        if self._generator is None:
            spec, start = self._job.spec, time.monotonic()
            self._report(f"loading {spec.base.name}" + (" and its adapter" if spec.adapter else ""), {})
            loaded = backend_named(spec.backend).load(spec, self.device.name)
            self._generator = generator_of(loaded, self.device.execution)
            self.loading = time.monotonic() - start
        return self._generator.generate(prompts, sampling, **options)
