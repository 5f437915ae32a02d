"""The logger `told`: what a run's steps do and say, as JSON lines in a file, for whoever shows the run elsewhere.

It takes what Dagster's own log gets, and nothing is made for it: `ernie run` reads along.
"""

import json
import logging
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, Field

EVENT, META = "dagster_event", "dagster_meta"
"""What Dagster puts on a log record: the event that it is about, if it is about one, and what it belongs to."""
INTERRUPTED = "DagsterExecutionInterruptedError"
NOT_EXECUTED = "Dependencies for step "
"""How Dagster begins to say that a step is not executed, for one above it failed."""
OF_PIPES = "[pipes]"
"""How Dagster begins what it says of a job's pipe, such as that it was not closed by a job that was interrupted."""


@dg.logger({"file": Field(str, description="where the lines go; processes append to it side by side")})
def told(context: dg.InitLoggerContext) -> logging.Logger:
    """To be chosen in a run's config: `loggers: {told: {config: {file: ...}}}`."""
    logger = logging.Logger("told", logging.INFO)
    logger.addHandler(_Lines(Path(context.logger_config["file"])))
    logger.setLevel(logging.DEBUG)  # Dagster's events come at that level
    return logger


class _Lines(logging.Handler):
    def __init__(self, file: Path):
        super().__init__()
        self.file = file

    def emit(self, record: logging.LogRecord) -> None:
        line = told_of(record)
        if line is None:
            return
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:  # who shows it may be gone, and the run goes on
            pass


def told_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """What a record says, if it is one that is shown: `what` of which `asset`, with what belongs to it."""
    event, meta = getattr(record, EVENT, None), getattr(record, META, {}) or {}
    step = meta.get("step_key")
    if not step:
        return None
    step = step.rpartition("__")[2]  # the asset's name alone, whatever its key begins with
    if event is None:
        if record.levelno < logging.INFO:
            return None
        words = str(meta.get("orig_message") or record.getMessage())
        if words.startswith(OF_PIPES):
            return None
        if words.startswith(NOT_EXECUTED):
            return {"what": "skipped", "asset": step}
        return {"what": "warned" if record.levelno >= logging.WARNING else "said", "asset": step, "words": words}
    found = _of_event(event, step)
    return found and {"asset": step, **found}


def _of_event(event: DagsterEvent, step: str) -> dict[str, Any] | None:
    kind = event.event_type
    if kind == DagsterEventType.STEP_START:
        return {"what": "began"}
    if kind == DagsterEventType.ASSET_OBSERVATION:
        seen = event.asset_observation_data.asset_observation
        values = {name: value.value for name, value in seen.metadata.items()}
        return {"what": "progress", "values": values} if values and seen.asset_key.path[-1] == step else None
    if kind == DagsterEventType.ASSET_MATERIALIZATION:
        made = event.step_materialization_data.materialization.metadata
        values = {name: made[name].value for name in ("reused", "build seconds") if name in made}
        return {"what": "made", "values": values}
    if kind == DagsterEventType.STEP_FAILURE:
        words = _why(event)
        return {"what": "stopped" if INTERRUPTED in words else "failed", "words": words}
    return {"what": "skipped"} if kind == DagsterEventType.STEP_SKIPPED else None


def _why(event: DagsterEvent) -> str:
    """Our own sentence where the step raised one, else the last error's first line."""
    failure: Any = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip().splitlines()[0] if error and error.message.strip() else "it failed"
