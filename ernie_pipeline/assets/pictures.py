"""Pictures for the asset pages, inline so that they need no server."""

import base64
import io
from typing import Any


def loss_curve(curve: list[dict[str, float]]) -> str:
    """The curve's training and validation loss over the steps, as a Markdown image."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(6.4, 3.2), dpi=110, layout="constrained")
    axes: Any = figure.subplots()
    for name, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o--")):
        points = [(entry["step"], entry[name]) for entry in curve if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label}, last {points[-1][1]:.3f}")
    axes.set(xlabel="optimizer step", ylabel="loss (nats a token)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"![loss curve](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
