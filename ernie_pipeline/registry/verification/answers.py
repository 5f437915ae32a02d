"""Held-out questions answered once more, by the registered model as a server would load it, beside what is stored."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict

from ernie_pipeline.registry.verification.step import Step, differs, passed, unchecked
from ernie_pipeline.registry.verification.version import Version
from ernie_pipeline.store.readable import read_json
from ernie_pipeline.utils.child_process import ask_script
from ernie_pipeline.utils.errors import PipelineError

NAME = "answers"
SCRIPT = Path(__file__).with_name("answers_script.py")
CPU_THREADS = re.compile(r"CPU, (\d+) threads")


class AnswersRequest(BaseModel):
    """Which model version, as MLflow's URI, and the conversations that it is to answer greedily."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    conversations: tuple[tuple[dict[str, str], ...], ...]


class Answered(BaseModel):
    """The answers, and on which device, held by which backend, they were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: tuple[str, ...]
    device: str
    backend: str


def check_answers(version: Version, evaluation: Path, split: Path, count: int, quantized_bases: dict[str, str]) -> Step:
    """Let the version answer `count` of the held-out questions that the artifact `evaluation` has answers to.

    On the device that those were made on, by the same backend, every answer must be the same text; on another one,
    where sums are rounded otherwise, what differs is told, and proves nothing. `quantized_bases`: the environment
    variable by which the model finds where quantized base models are kept.
    """
    stored, recorded = _chosen(evaluation, split, count), read_json(evaluation / "reports" / "run.json")
    threads = CPU_THREADS.fullmatch(str(recorded["device"]))
    environment = {**quantized_bases, **os.environ, **({"OMP_NUM_THREADS": threads[1]} if threads else {})}
    request = AnswersRequest(uri=version.uri, conversations=tuple(tuple(row["prompt"]) for row in stored))
    try:
        with TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
            made = ask_script(SCRIPT, request, Answered, Path(scratch), environment)
    except PipelineError as error:
        return unchecked(NAME, f"the model could not answer: {error}")
    return _compared(stored, made, str(recorded["device"]), str(recorded["backend"]))


def _chosen(evaluation: Path, split: Path, count: int) -> list[dict[str, Any]]:
    """That many of the stored answers, at even distances, each with its prompt's messages."""
    import pyarrow.parquet as pq

    rows = pq.read_table(evaluation / "predictions.parquet", columns=["row_id", "prediction"]).to_pylist()
    prompts = pq.read_table(split / "eval.parquet", columns=["row_id", "prompt"]).to_pylist()
    messages = {row["row_id"]: row["prompt"] for row in prompts}
    count = min(count, len(rows))
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    return [{**row, "prompt": messages[row["row_id"]]} for row in chosen]


def _compared(stored: Sequence[dict[str, Any]], made: Answered, device: str, backend: str) -> Step:
    others = [row["row_id"] for row, now in zip(stored, made.answers, strict=True) if row["prediction"] != now]
    same, by = len(stored) - len(others), f"by {made.backend} on {made.device}"
    details = dict[str, Any](device=made.device, backend=made.backend, rows=len(stored), other=others)
    if not others:
        return passed(NAME, f"{same} of {len(stored)} answers made again {by} are the same text", **details)
    said = f"{len(others)} of {len(stored)} answers made again {by} are another text, the first to row {others[0]}"
    if (made.device, made.backend) == (device, backend):
        return differs(NAME, said, **details)
    why = f"those stored were made by {backend} on {device}, where sums are rounded otherwise, so this proves nothing"
    return unchecked(NAME, f"{said}; {why}", **details)
