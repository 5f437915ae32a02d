"""Unsloth's import, and what a process must have said before: it calls home and writes into the working directory."""

import atexit
import os
import shutil
import tempfile
from typing import Any

from ernie_pipeline.utils.errors import PipelineError, first_line

QUIET = {
    "UNSLOTH_DISABLE_STATISTICS": "1",  # it asks the hub for a file, to be counted
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
COMPILED = "UNSLOTH_COMPILE_LOCATION"


def fast_model() -> Any:
    """Unsloth's `FastModel`, imported first of all as it asks: whoever imports TRL's trainer later gets Unsloth's.

    Raises `PipelineError` where it cannot be imported.
    """
    prepare_environment()
    try:
        import unsloth  # noqa: F401  # before transformers, whose classes it replaces
        from unsloth import FastModel
    except (ImportError, NotImplementedError, RuntimeError) as error:  # it raises the latter without a CUDA device
        raise PipelineError(
            f'the package unsloth cannot be used here ({first_line(error)}); set training.backend to "auto" or "peft"'
        ) from error
    return FastModel


def prepare_environment() -> None:
    """Set what is not set yet. Its compiled modules go into a folder that ends with this process: two processes at once
    would write the same files."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if COMPILED not in os.environ:
        os.environ[COMPILED] = tempfile.mkdtemp(prefix="unsloth-compiled-")
        atexit.register(shutil.rmtree, os.environ[COMPILED], ignore_errors=True)


def settle_compilation() -> None:
    """What Unsloth's trainer does before each step: functions compiled for too many shapes go back to eager there, and
    not within a step, where gradient checkpointing computes them twice."""
    from unsloth_zoo.temporary_patches.utils import apply_pending_eager_fallbacks

    apply_pending_eager_fallbacks()
