"""Pictures for the asset pages, inline so that they need no server."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = {"train": "#2a78b8", "evaluation": "#37a070", "unused": "#b8b8b8", "dropped": "#c8553d"}


def loss_curve(curve: list[dict[str, float]]) -> str:
    """The curve's training and validation loss over the steps, as a Markdown image."""
    figure, axes = _figure(6.4, 3.2)
    for name, label, style in (("loss", "training", "-"), ("loss_objective", "validation", "o--")):
        points = [(entry["step"], entry[name]) for entry in curve if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label}, last {points[-1][1]:.3f}")
    axes.set(xlabel="optimizer step", ylabel="loss (nats a token)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return _markdown(figure, "loss curve")


def reward_curve(curve: list[dict[str, float]]) -> str:
    """The curve's reward, solved share and accuracy on the problems set aside over the steps, as a Markdown image."""
    figure, axes = _figure(6.4, 3.2)
    for name, label, style in (("reward", "reward", "-"), ("solved", "solved", "-"), ("accuracy", "set aside", "o--")):
        points = [(entry["step"], entry[name]) for entry in curve if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label}, last {points[-1][1]:.3f}")
    axes.set(xlabel="optimizer step", ylabel="of an answer")
    axes.grid(alpha=0.3)
    axes.legend()
    return _markdown(figure, "reward curve")


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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"![{name}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"


def png(markdown: str) -> bytes:
    """The picture in what the functions above give, for a file."""
    return base64.b64decode(markdown.rpartition("base64,")[2].removesuffix(")"))
