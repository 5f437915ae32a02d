"""Training and validation loss while it trains: to the log, to Dagster by way of the pipe, and kept as a curve."""

import time
from typing import Any

from transformers import TrainerCallback

from ernie_pipeline.reporter import Reporter

KEPT = {"loss": "loss", "eval_loss": "eval_loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}


class Progress(TrainerCallback):  # type: ignore[misc]
    """Collects `curve`, one entry a log event, and sends each to `report`."""

    def __init__(self, report: Reporter):
        self.report = report
        self.curve: list[dict[str, float]] = []
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the training began."""
        return time.monotonic() - self.start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        values = {KEPT[name]: float(value) for name, value in (logs or {}).items() if name in KEPT}
        if not values:
            return
        seconds = self.seconds
        self.curve.append({"step": state.global_step, **values})
        left = seconds / max(state.global_step, 1) * (state.max_steps - state.global_step)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "grad_norm")
        self.report(
            f"step {state.global_step}/{state.max_steps}: {shown} ({seconds:.0f} s, about {left:.0f} s left)",
            {"step": state.global_step, "max_steps": state.max_steps, "seconds": round(seconds, 1), **values},
        )
