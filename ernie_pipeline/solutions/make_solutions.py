"""One round of solutions: the training problems sampled from the model, graded, and the right ones chosen from."""

import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.grading.grade import grade
from ernie_pipeline.models.device import choose_device
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.solutions.attempts import Attempt, attempt, chosen, earlier_attempts, write_attempts, write_kept
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.solutions.metrics import problem_rows, summarise
from ernie_pipeline.solutions.problems import Problem, for_validation, read_problems
from ernie_pipeline.solutions.sample import Sampled, sample, sample_part
from ernie_pipeline.solutions.unusable import check_usable
from ernie_pipeline.utils.json_file import write_json
from ernie_pipeline.utils.reporter import Reporter


def make(job: SolutionsJob, report: Reporter) -> None:
    """Solve the problems that `job` describes and fill its folder `out`.

    Writes `attempts.parquet` (every attempt of every round), `train.parquet` and `validation.parquet` (the kept
    solutions), `problems.parquet` (a row a problem), `metrics.json`, and below `reports/` what it ran on and its cost.
    Raises `PipelineError` where nothing can be learnt from what came out, see `check_usable`.
    """
    device, settings = choose_device(job.limits, job.execution, report), job.solutions
    problems = read_problems(job.split / "train.parquet", settings.rows, settings.seed)
    if job.part:
        sample_part(job, problems, job.part, device, report)
        return
    sampled = sample(job, problems, device, report)
    free_memory()
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
    write_json(job.out / "metrics.json", {**metrics, **counts, "same_tokens_share": sampled.same_tokens})
    write_json(job.out / "reports" / "run.json", run)


def _graded(job: SolutionsJob, problems: Sequence[Problem], sampled: Sampled) -> list[Attempt]:
    """This round's attempts with their grades."""
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
