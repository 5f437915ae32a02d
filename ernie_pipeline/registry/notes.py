"""The descriptions that MLflow shows above an experiment, a run and a registered model, in Markdown."""

from collections.abc import Mapping, Sequence

from ernie_pipeline.registry.mlflow_pages import page
from ernie_pipeline.registry.trained_on import loss_note
from ernie_pipeline.utils.shares import percent, points, points_between
from ernie_pipeline.utils.text_table import markdown_table

EXPERIMENT = """\
LoRA adapters of ERNIE-4.5, fine-tuned on mathematics. Each registered adapter has one run, and beside it one of its
base model, both measured on the same held-out rows. A figure has the same name in both, so charts show them side by
side; the tag `model` tells them apart. `comparison/gain` is the gain over the base model, `training/...` the curve,
`cost/...` what it took, and a suite's figures stand under its name. All figures, with their intervals and by kind of
answer, are in the table `figures.json` of each run, a suite's in its own; costs by asset in `costs.json`."""

MODEL = """\
LoRA adapters with what is needed to serve them. `champion`: the best one that passed the gate. `challenger`: the
newest. Each version says what it was made from, how it was measured and how to load it."""

SHARES = {"accuracy": "accuracy", "accuracy_strict": "accuracy, boxed and ended"}
FIGURES = {**SHARES, "loss_completion": "loss"}


def base_note(beside: str) -> str:
    """Of the base model's run; `beside`: the name of the adapter's run."""
    return f"The base model, without an adapter, measured on the same held-out rows as *{beside}*."


def adapter_note(
    about: Mapping[str, str], figures: Mapping[str, Mapping[str, float]], comparison: Mapping[str, float]
) -> str:
    """Of the adapter's run. `about`: what it is, by name, `trained_on` too; `figures`: of "base" and "adapter"."""
    base, adapter = figures["base"], figures["adapter"]
    rows = [
        (words, *(percent(of[name]) if name in SHARES else f"{of[name]:.4f}" for of in (base, adapter)))
        for name, words in FIGURES.items()
        if name in base and name in adapter
    ]
    interval = points_between(comparison["gain_low"], comparison["gain_high"])
    gain = f"Gain in accuracy {points(comparison['gain'])} (95 % interval {interval}), p = {comparison['p_value']:.3g}."
    said = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in about.items())
    note = loss_note("the adapter", about["trained_on"], adapter, base)
    table = markdown_table(("held-out rows", "base", "adapter"), rows)
    return "\n\n".join([said, table, gain, *([note] if note else [])])


def outcome_note(name: str, version: str, aliases: Sequence[str], reasons: Sequence[str]) -> str:
    """What is added to the adapter's run when it is registered and the gate has decided."""
    passed = "passed" if "champion" in aliases else "not passed"
    place = f"[{name}, version {version}]({page(f'models/{name}/versions/{version}')})"
    return f"Registered as {place}. Gate {passed}: {' '.join(reasons)}"
