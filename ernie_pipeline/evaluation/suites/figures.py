"""What one model's answers to a suite come to: each figure with its intervals, and by kind, level and subject."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from scipy.stats import t as students_t  # type: ignore[import-untyped]

from ernie_pipeline.evaluation.suites.attempts import Attempt
from ernie_pipeline.evaluation.suites.scores import Answered, OverSeeds, Score, by_problem, mean, scores_of
from ernie_pipeline.grading.intervals import wilson

GROUPS = ("kind", "level", "subject")
TAKEN = frozenset({"by_kind", "comparison", "cost", "training"})
"""What other figures in a table of metrics are called."""

Figure = dict[str, float | None]


def summarise(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The figures of one model's attempts at a suite. Raises `ValueError` for none.

    problems, samples   how many there are, and how often each was sampled
    greedy              share of problems whose greedy answer is correct, wherever it stands there
    greedy_strict       share whose greedy answer is correct, boxed and ended
    avg_at, pass_at, maj_at   figures of the sampled answers by k, see `scores_of`; {} where nothing was sampled
    per_seed            the share of correct answers of each sample's number
    unboxed_share, unended_share, timeout_share   of all attempts
    by                  kind, level and subject: of each one's problems greedy, avg_at and pass_at of all samples
    and each figure is as `figure` has it.
    """
    problems = [*by_problem(attempts).values()]
    if not problems:
        raise ValueError("no attempts")
    scores, total = scores_of(problems), len(attempts)
    return {
        "problems": len(problems),
        "samples": len(problems[0].right),
        "greedy": greedy(problems),
        "greedy_strict": figure(Score(tuple(float(each.greedy.strict) for each in problems))),
        **{
            f"{name}_at": {str(k): figure(score) for k, score in scores.get(name, {}).items()}
            for name in ("avg", "pass", "maj")
        },
        "per_seed": [mean([each.right[seed] for each in problems]) for seed in range(len(problems[0].right))],
        "unboxed_share": sum(not each.boxed for each in attempts) / total,
        "unended_share": sum(not each.ended for each in attempts) / total,
        "timeout_share": sum(each.outcome == "timeout" for each in attempts) / total,
        "by": {group: by_group(problems, group) for group in GROUPS},
    }


def greedy(problems: Sequence[Answered]) -> Figure:
    """The share of problems whose greedy answer is correct."""
    return figure(Score(tuple(float(each.greedy.correct) for each in problems)))


def figure(score: Score) -> Figure:
    """`value`, and two intervals of 95 %, in [0, 1].

    low, high               over problems: what the share would be of more problems like these (Wilson's; a problem's
                            own share varies less than the 0 or 1 that it takes, so it is at most too wide)
    seeds_low, seeds_high   over seeds: what it would be of these problems with other seeds (Student's t). None where
                            one set of seeds says nothing of it: for the greedy answer, pass@n, and maj@k above n / 2
    """
    value = mean(score.values)
    low, high = wilson(min(max(value, 0.0), 1.0), len(score.values))
    seeds_low, seeds_high = _over_seeds(value, score.over_seeds)
    return {"value": value, "low": low, "high": high, "seeds_low": seeds_low, "seeds_high": seeds_high}


def _over_seeds(value: float, spread: OverSeeds | None) -> tuple[float | None, float | None]:
    if spread is None:
        return None, None
    reach = float(students_t.ppf(0.975, spread.freedom)) * spread.error
    return max(0.0, value - reach), min(1.0, value + reach)


def by_group(problems: Sequence[Answered], group: str) -> dict[str, dict[str, Any]]:
    """Of each kind, level or subject: its problems, and their figures; {} where no problem has one."""
    return {
        name: {"problems": len(own), "greedy": greedy(own), **_of_all_samples(own)}
        for name, own in grouped(problems, group).items()
    }


def grouped(problems: Sequence[Answered], group: str) -> dict[str, list[Answered]]:
    """The problems of each kind, level or subject, by its name; without those that have none."""
    names = sorted({str(name) for each in problems if (name := getattr(each.greedy, group)) is not None}, key=_natural)
    return {name: [each for each in problems if getattr(each.greedy, group) == name] for name in names}


def _natural(name: str) -> tuple[float, str]:
    """Numbers in their order, before words; "nan", which has no place among numbers, is a word."""
    try:
        number = float(name)
    except ValueError:
        return inf, name
    return number if isfinite(number) else inf, name


def _of_all_samples(problems: Sequence[Answered]) -> dict[str, Figure]:
    scores = scores_of(problems)
    return {f"{name}_at": figure(scores[name][max(scores[name])]) for name in ("avg", "pass") if name in scores}


def suite_figures(name: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """One model's figures on the suite `name` as flat names, for a table of metrics such as MLflow's.

    `metrics`: what `summarise` gave. "gsm8k/accuracy" (greedy), "gsm8k/accuracy_strict", and where answers were sampled
    "gsm8k/avg_at_8", "gsm8k/pass_at_8" and "gsm8k/maj_at_8" for each k; each with "_low" and "_high", over problems.
    Those of a suite with a name of `TAKEN` begin with "suite_".
    """
    figures = {"accuracy": metrics["greedy"], "accuracy_strict": metrics["greedy_strict"]}
    figures |= {f"{key}_{k}": found for key in ("avg_at", "pass_at", "maj_at") for k, found in metrics[key].items()}
    group = f"suite_{name}" if name in TAKEN else name
    return {
        f"{group}/{figure_name}{suffix}": float(found[part])
        for figure_name, found in figures.items()
        for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
