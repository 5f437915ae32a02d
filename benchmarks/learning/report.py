"""What the runs come to: accuracies with intervals, and paired tests, over problems and seeds."""

import json
from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import Runs
from scipy.stats import t, ttest_rel

Values = NDArray[np.float64]
"""Of each problem, the mean over seeds."""

Mean = tuple[float, float, float]
"""A mean over problems, and the ends of its 95 % interval."""


def report(seeds: Sequence[Runs], methods: Sequence[str]) -> str:
    """A table of all methods in Markdown, and the tests of the differences that are asked for."""
    found = {method: [_measured(runs, method) for runs in seeds] for method in methods}
    lines = [
        f"{len(seeds)} seeds, {seeds[0].settings.updates} updates each; held-out problems, greedy answers that are "
        "right, boxed and ended, unless said otherwise; [95 % interval over problems]",
        "",
        "| method | accuracy | of 8 sampled: each | one of them | majority | longer sums | two-step equations | "
        "training problems solved 20 to 80 % | tokens sampled | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, own in found.items():
        sampled = [np.array(each["held_out"]["sampled"]) for each in own]
        cells = [
            _percent(_mean(_over_seeds(each["held_out"]["greedy"] for each in own))),
            _percent(_mean(_over_seeds(each.mean(axis=1) for each in sampled))),
            _percent(_mean(_over_seeds(each.any(axis=1) for each in sampled))),
            _percent(_mean(_over_seeds(each["held_out"]["majority"] for each in own))),
            *(
                _percent(_mean(_over_seeds(e[name]["greedy"] for e in own)))
                for name in ("longer_sums", "two_step_equations")
            ),
            f"{np.mean([np.mean(each['sometimes']['greedy']) for each in own]):.1%}",
            *_cost(seeds, method),
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_tests(found)])


def _tests(found: dict[str, list[Any]]) -> list[str]:
    """Paired over problems, each problem's value being its mean over seeds; and the seeds' own gains."""
    lines = []
    for before, after in (("answers", "solutions"), ("answers", "solutions_2"), ("base", "answers"), ("base", "grpo")):
        if before not in found or after not in found:
            continue
        one, other = ([np.array(each["held_out"]["greedy"], dtype=float) for each in found[m]] for m in (before, after))
        gains = [float(b.mean() - a.mean()) for a, b in zip(one, other, strict=True)]
        test = ttest_rel(_over_seeds(other), _over_seeds(one))
        low, high = test.confidence_interval()
        lines.append(
            f"{after} against {before}: {np.mean(gains):+.1%} [{low:+.1%}, {high:+.1%}], p = {test.pvalue:.2g} "
            f"(paired t test over problems); by seed {', '.join(f'{gain:+.1%}' for gain in gains)}"
        )
    return lines


def _measured(runs: Runs, method: str) -> Any:
    return json.loads((runs.folder / f"measured_{method}.json").read_text())


def _over_seeds(values: Any) -> Values:
    return np.mean([np.asarray(each, dtype=float) for each in values], axis=0)


def _mean(values: Values) -> Mean:
    reach = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / sqrt(len(values))
    return float(values.mean()), float(values.mean() - reach), float(values.mean() + reach)


def _percent(mean: Mean) -> str:
    return f"{mean[0]:.1%} [{max(0.0, mean[1]):.1%}, {min(1.0, mean[2]):.1%}]"


def _cost(seeds: Sequence[Runs], method: str) -> tuple[str, str]:
    """Tokens sampled for a run, and the seconds of its processes; means over seeds."""
    parts = {
        "solutions": ("sampled_1", "solutions"),
        "solutions_2": ("sampled_1", "solutions", "sampled_2", "solutions_2"),
    }
    tokens, seconds = [], []
    for runs in seeds:
        facts = [runs.facts(name) for name in parts.get(method, () if method == "base" else (method,))]
        tokens.append(sum(each.get("generated_tokens", each.get("tokens_sampled", 0)) for each in facts))
        seconds.append(sum(each["seconds"] for each in facts))
    return f"{np.mean(tokens):,.0f}", f"{np.mean(seconds):.0f}"
