"""What an artifact cost: the seconds of the jobs that made it, and for how much work, for the next one's estimate."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.section import Section
from ernie_pipeline.store.artifacts import COST
from ernie_pipeline.store.spending import read_spent, total, unfinished_place

Report = Mapping[str, Any]
"""What an artifact's reports/run.json says."""

ANSWERS, SAMPLES = "answers", "samples"


class Cost(Section):
    """Of one artifact, from the first job for it to the one that completed it, killed ones included.

    `seconds`: of its jobs, times their GPUs, on a CPU times 1; `gpu_seconds`: those on GPUs. `jobs`: how many there
    were; `device`: what the last one ran on. The artifact is `amount` units of work ("answers" or "samples"), from
    `rows` rows; `made` of them were made in `work_s` of the seconds. A job took `overhead_s` besides, to load the model
    and the like. `waited_s`: that they waited for a place to run, which are in none of the others.
    """

    seconds: float
    gpu_seconds: float
    jobs: int
    device: str = ""
    unit: str = ""
    amount: int = 0
    rows: int = 0
    made: int = 0
    work_s: float = 0.0
    overhead_s: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True)
class _Work:
    """What a report tells of the work. `work_s`: seconds of the clock, of the last job or of `all_jobs`."""

    unit: str
    amount: int
    rows: int
    made: int
    work_s: float
    all_jobs: bool = False


def cost_of(build: Mapping[str, Any]) -> Cost | None:
    """What a manifest or a line of the history says of it, None for nothing that can be read."""
    try:
        return Cost.model_validate(build[COST])
    except (KeyError, ValueError):
        return None


def measured_cost(artifact: Path, unfinished: Path) -> dict[str, Any]:
    """What the manifest is to say of what the artifact in a folder cost, {} where no job worked for it.

    `unfinished`: the folder of its build, where its jobs left their records.
    """
    jobs = read_spent(unfinished_place(unfinished))
    if not jobs:
        return {}
    spent, report = total(jobs), _report(artifact)
    work = _work_of(report)
    work_s = min(work.work_s * max(1, jobs[-1].gpus), spent.counted if work.all_jobs else jobs[-1].counted)
    besides = (spent.counted - work_s) / len(jobs) if work.all_jobs else jobs[-1].counted - work_s
    return Cost(
        seconds=round(spent.counted, 3),
        gpu_seconds=round(spent.gpu_seconds, 3),
        jobs=len(jobs),
        device=str(report.get("device", "")),
        unit=work.unit,
        amount=work.amount,
        rows=work.rows,
        made=work.made,
        work_s=round(work_s, 3),
        overhead_s=round(besides, 3),
        waited_s=round(spent.waited_s, 3),
    ).model_dump()


def _work_of(report: Report) -> _Work:
    """From the report that each kind of job writes."""
    if "samples" in report:
        samples = int(report["samples"])
        return _Work(SAMPLES, samples, int(report["train_rows"]), samples, float(report["seconds"]), all_jobs=True)
    if "problems_sampled" not in report:
        return _Work("", 0, 0, 0, 0.0)
    rows = int(report["problems_sampled"] + report["problems_reused"])
    if "attempts_sampled" in report:
        made, kept = int(report["attempts_sampled"]), int(report["attempts_reused"])
        return _Work(ANSWERS, made + kept, rows, made, float(report["sampling_seconds"]))
    rate = float(report["generated_tokens_per_s"])
    seconds = float(report["generated_tokens"]) / rate if rate else 0.0
    return _Work(ANSWERS, rows, rows, int(report["problems_sampled"]), seconds)


def _report(artifact: Path) -> Report:
    try:
        report = json.loads((artifact / "reports" / "run.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
