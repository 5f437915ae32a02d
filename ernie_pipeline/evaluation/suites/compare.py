"""Base and adapter side by side on a suite: every figure's gain, by kind, and the questions that changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import t as students_t  # type: ignore[import-untyped]

from ernie_pipeline.evaluation.compare import check_backends
from ernie_pipeline.evaluation.metrics import compare_paired
from ernie_pipeline.evaluation.suites.attempts import read_attempts
from ernie_pipeline.evaluation.suites.figures import GROUPS, grouped
from ernie_pipeline.evaluation.suites.scores import Answered, by_problem, mean, scores_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.json_file import write_json

CHANGED, CONTAMINATION = "changed.parquet", "contamination.parquet"
ASKED = ("question", "reference", "kind", "level", "subject")
"""What each attempt says of its problem."""
SCHEMA = pa.schema(
    [
        ("change", pa.string()),
        *((name, pa.float64()) for name in ("gain", "base_share", "adapter_share")),
        *((name, pa.string()) for name in ("row_id", *ASKED)),
        *((name, pa.string()) for name in ("base_answer", "adapter_answer", "base_text", "adapter_text")),
        ("contaminated", pa.bool_()),
    ]
)
"""Of changed.parquet: the shares are of right answers, of the sampled ones where there are any, else of the greedy."""

Problems = Mapping[str, Answered]


def write_comparison(base: Path, adapter: Path, training_rows: int, out: Path) -> None:
    """Write `comparison.json` (see `compare`) and `changed.parquet` of two artifacts with answers to one suite.

    The folder `out` already holds contamination.parquet, of which the column `row_id` is read; `training_rows`: how
    many rows it is held against. Raises `PipelineError` for other problems, other numbers of samples and for answers by
    different backends.
    """
    check_backends(base, adapter)
    before, after = (by_problem(read_attempts(folder)) for folder in (base, adapter))
    if before.keys() != after.keys() or _samples(before) != _samples(after):
        raise PipelineError(f"the suite's answers in {base} and {adapter} are not to the same; answer it anew by both")
    contaminated = {*pq.read_table(out / CONTAMINATION, columns=["row_id"])["row_id"].to_pylist()}
    found = compare(before, after, contaminated)
    found["contamination"]["training_rows"] = training_rows
    write_json(out / "comparison.json", found)
    rows = changed_rows(before, after, contaminated)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), out / CHANGED)


def _samples(problems: Problems) -> list[int]:
    return [len(each.right) for each in problems.values()]


def compare(before: Problems, after: Problems, contaminated: Collection[str]) -> dict[str, Any]:
    """Both models' figures on the same problems, by row id, and what the adapter gains.

    figures         greedy, and avg, pass and maj at each k, each as {figure, base, adapter, gain, low, high}: the gain
                    with its interval of 95 % over problems
    paired          `PairedComparison` of the greedy answers
    by              kind, level and subject: the same of the greedy answers and avg, for each one
    better, worse   problems with a larger and a smaller share of right answers
    contamination   problems that a training row asks, their share, and the greedy figures without them
    """
    old, new = [*before.values()], [after[row_id] for row_id in before]
    gains = [b.share - a.share for a, b in zip(old, new, strict=True)]
    return {
        "problems": len(old),
        "samples": len(old[0].right),
        "figures": _gains(old, new),
        "paired": _paired(old, new),
        "by": {group: _by_group(before, after, group) for group in GROUPS},
        "better": sum(gain > 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "contamination": _contamination(old, new, contaminated),
    }


def _gains(old: Sequence[Answered], new: Sequence[Answered], all_ks: bool = True) -> list[dict[str, Any]]:
    paired = _paired(old, new)
    base, adapter = (mean([each.greedy.correct for each in own]) for own in (old, new))
    rows = [_row("greedy", base, adapter, paired["gain_low"], paired["gain_high"])]
    first, second = scores_of(old), scores_of(new)
    for name in first if all_ks else [name for name in first if name == "avg"]:
        for k, score in first[name].items():
            later = second[name][k].values
            low, high = _mean_interval([b - a for a, b in zip(score.values, later, strict=True)])
            rows.append(_row(f"{name}@{k}", mean(score.values), mean(later), low, high))
    return rows


def _row(figure: str, base: float, adapter: float, low: float, high: float) -> dict[str, Any]:
    return {"figure": figure, "base": base, "adapter": adapter, "gain": adapter - base, "low": low, "high": high}


def _paired(old: Sequence[Answered], new: Sequence[Answered]) -> dict[str, Any]:
    return asdict(compare_paired([each.greedy.correct for each in old], [each.greedy.correct for each in new]))


def _mean_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of each problem's difference (Student's t), in [-1, 1]; of one problem, all.

    Where no difference differs from another it keeps a width: a share of other problems that is as large may have been
    missed (Clopper and Pearson, Biometrika 26 (1934) 404-413, for 0 of n).
    """
    number = len(differences)
    if number < 2:
        return -1.0, 1.0
    spread = stdev(differences)
    reach = float(students_t.ppf(0.975, number - 1)) * spread / sqrt(number) if spread else 1 - 0.025 ** (1 / number)
    return max(-1.0, mean(differences) - reach), min(1.0, mean(differences) + reach)


def _by_group(before: Problems, after: Problems, group: str) -> list[dict[str, Any]]:
    return [
        {group: name, "problems": len(own), **row}
        for name, own in grouped([*before.values()], group).items()
        for row in _gains(own, [after[each.greedy.row_id] for each in own], all_ks=False)
    ]


def _contamination(old: Sequence[Answered], new: Sequence[Answered], contaminated: Collection[str]) -> dict[str, Any]:
    clean = [i for i, each in enumerate(old) if each.greedy.row_id not in contaminated]
    without = _gains([old[i] for i in clean], [new[i] for i in clean], all_ks=False) if clean else []
    return {
        "contaminated": len(old) - len(clean),
        "share": 1 - len(clean) / len(old),
        "figures_without": without,
    }


def changed_rows(before: Problems, after: Problems, contaminated: Collection[str]) -> list[dict[str, Any]]:
    """A row of `SCHEMA` for each problem that got better or worse, the largest changes first."""
    rows = [
        {
            "change": "better" if own.share > each.share else "worse",
            "gain": own.share - each.share,
            "base_share": each.share,
            "adapter_share": own.share,
            "row_id": row_id,
            **{name: getattr(each.greedy, name) for name in ASKED},
            "base_answer": each.greedy.extracted,
            "adapter_answer": own.greedy.extracted,
            "base_text": each.greedy.text,
            "adapter_text": own.greedy.text,
            "contaminated": row_id in contaminated,
        }
        for row_id, each in before.items()
        if (own := after[row_id]).share != each.share
    ]
    return sorted(rows, key=lambda row: (-abs(row["gain"]), row["change"], row["row_id"]))
