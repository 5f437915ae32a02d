"""Pictures: for the asset pages inline, so that they need no server, and as PNG files for MLflow."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ernie_pipeline.grading.intervals import wilson
from ernie_pipeline.utils.shares import percent

Curve = list[dict[str, float]]
"""Entries {"step": int} with any of loss, loss_objective, learning_rate, reward, solved, accuracy."""

COLOURS = {"train": "#2a78b8", "evaluation": "#37a070", "unused": "#b8b8b8", "dropped": "#c8553d"}


def loss_curve(curve: Curve) -> str:
    """The curve's training and validation loss and its learning rate over the steps, as a Markdown image."""
    return _markdown(_losses(curve), "loss curve")


def reward_curve(curve: Curve) -> str:
    """The curve's reward, solved share and accuracy on the problems set aside over the steps, as a Markdown image."""
    return _markdown(_rewards(curve), "reward curve")


def pictures_of_training(curve: Curve) -> dict[str, bytes]:
    """The same curve as a PNG file, by its name."""
    if any("reward" in entry for entry in curve):
        return {"reward_curve": _png(_rewards(curve))}
    return {"loss_curve": _png(_losses(curve))}


def accuracy_by_kind(base: Mapping[str, Any], adapter: Mapping[str, Any]) -> bytes:
    """Both models' accuracy side by side with 95 % intervals, of all held-out rows and by kind, as a PNG file.

    `base` and `adapter`: the metrics of an evaluation.
    """
    return _png(_accuracies(base, adapter))


def accuracy_picture(base: Mapping[str, Any], adapter: Mapping[str, Any]) -> str:
    """The same as a Markdown image."""
    return _markdown(_accuracies(base, adapter), "accuracy of base and adapter")


def _accuracies(base: Mapping[str, Any], adapter: Mapping[str, Any]) -> Any:
    kinds = sorted(adapter["by_kind"], key=lambda kind: -adapter["by_kind"][kind]["rows"])
    names = [f"all ({adapter['rows']:,})", *(f"{kind} ({adapter['by_kind'][kind]['rows']:,})" for kind in kinds)]
    figure, axes = _figure(6.4, 1.0 + 0.5 * len(names))
    for metrics, label, colour, shift in (
        (base, "base", COLOURS["unused"], -0.2),
        (adapter, "adapter", COLOURS["train"], 0.2),
    ):
        shares = [_with_interval(metrics), *(_with_interval(metrics["by_kind"].get(kind)) for kind in kinds)]
        places = [place + shift for place in range(len(names))]
        bars = axes.barh(places, [share for share, _, _ in shares], 0.38, color=colour, label=label)
        reach = [[abs(share - each[end]) for share, *each in shares] for end in (0, 1)]
        axes.errorbar([share for share, _, _ in shares], places, xerr=reach, fmt="none", ecolor="black", capsize=3)
        axes.bar_label(bars, labels=[percent(share) for share, _, _ in shares], label_type="center")
    axes.set(xlabel="right answers to the held-out rows, with 95 % intervals", xlim=(0, 1))
    axes.set(yticks=range(len(names)), yticklabels=names)
    axes.xaxis.set_major_formatter(lambda share, _: percent(share, 0))
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def shares_picture(bars: Sequence[tuple[str, float, float, float, str, str]]) -> str:
    """Shares with their intervals below one another, as a Markdown image; each (label, share, low, high, words, colour)
    as a `Bar` of the small pictures."""
    figure, axes = _figure(6.4, 0.8 + 0.3 * len(bars))
    labels, shares, lows, highs, words, colours = zip(*bars, strict=True)
    drawn = axes.barh(range(len(bars)), shares, color=colours)
    reach = [[abs(share - end) for share, end in zip(shares, ends, strict=True)] for ends in (lows, highs)]
    axes.errorbar(shares, range(len(bars)), xerr=reach, fmt="none", ecolor="black", capsize=3)
    axes.bar_label(drawn, labels=words, label_type="center")
    axes.set(yticks=range(len(bars)), yticklabels=labels, xlim=(0, 1), xlabel="right answers, with 95 % intervals")
    axes.xaxis.set_major_formatter(lambda share, _: percent(share, 0))
    axes.invert_yaxis()
    return _markdown(figure, "right answers")


def _with_interval(metrics: Mapping[str, Any] | None) -> tuple[float, float, float]:
    """The accuracy and the ends of its interval; zeros where nothing was asked."""
    if not metrics or not metrics["rows"]:
        return 0.0, 0.0, 0.0
    accuracy = float(metrics["accuracy"])
    return accuracy, *wilson(accuracy, metrics["rows"])


def _losses(curve: Curve) -> Any:
    lines = (("loss", "training", "-"), ("loss_objective", "validation", "o--"))
    figure = _over_steps(curve, lines, ylabel="loss (nats a token)", yscale="log")
    rates = [(entry["step"], entry["learning_rate"]) for entry in curve if "learning_rate" in entry]
    if rates:
        beside = figure.axes[0].twinx()
        beside.plot(*zip(*rates, strict=True), ":", color=COLOURS["unused"])
        beside.set(ylabel="learning rate (dotted)", ylim=(0, None))
        beside.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return figure


def _rewards(curve: Curve) -> Any:
    lines = (("reward", "reward", "-"), ("solved", "solved", "-"), ("accuracy", "set aside", "o--"))
    return _over_steps(curve, lines, ylabel="of an answer")


def _over_steps(curve: Curve, lines: Sequence[tuple[str, str, str]], **axis: str) -> Any:
    """`lines`: a name in the curve's entries, what it is called, and matplotlib's style."""
    figure, axes = _figure(6.4, 3.2)
    for name, label, style in lines:
        points = [(entry["step"], entry[name]) for entry in curve if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label}, last {points[-1][1]:.3f}")
    axes.set(xlabel="optimizer step", **axis)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def dropped_rows(dropped: Mapping[str, int], places: Mapping[str, int]) -> str:
    """How many rows each filter took, and where the others ended, as a Markdown image; filters that took none left out.

    `dropped`: rows by filter, in the filters' order. `places`: rows by their place in the ledger.
    """
    bars = [(name, rows, COLOURS["dropped"]) for name, rows in dropped.items() if rows]
    bars += [(name, places[name], COLOURS[name]) for name in ("unused", "evaluation", "train") if places.get(name)]
    figure, axes = _figure(6.4, 0.6 + 0.28 * len(bars))
    names, rows, colours = zip(*bars, strict=True)
    axes.bar_label(axes.barh(names, rows, color=colours), labels=[f"{count:,}" for count in rows], padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="rows", xscale="log", xlim=(0.8, max(rows) * 8))
    return _markdown(figure, "rows dropped by each filter, and kept")


def pass_rates(counts: Sequence[int]) -> str:
    """How many problems have which pass rate, as a Markdown image; `counts`: of equal parts of [0, 1], in order."""
    figure, axes = _figure(6.4, 2.6)
    width = 1 / len(counts)
    bars = axes.bar([place * width for place in range(len(counts))], counts, width * 0.92, align="edge")
    axes.bar_label(bars, padding=2)
    axes.set(xlabel="pass rate", ylabel="problems", xlim=(0, 1))
    return _markdown(figure, "pass rates of the problems")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, figure.subplots()


def _markdown(figure: Any, name: str) -> str:
    return f"![{name}](data:image/png;base64,{base64.b64encode(_png(figure)).decode()})"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
