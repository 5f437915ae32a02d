"""What a process must do before anything of its work is imported."""

import os
from contextlib import suppress

from pydantic import ValidationError

from ernie_pipeline.launch.work import Job
from ernie_pipeline.utils.lighter_imports import bitsandbytes_without_compiler, files_read_once, without_unused
from ernie_pipeline.utils.timeline import part


def without_torch(job: Job) -> None:
    """For the split: no torch, and memory that is given back soon."""
    from ernie_pipeline.data.job import prepare_process

    prepare_process()


def unsloth_first(job: Job) -> None:
    """For a model of the backend `unsloth`, which patches transformers, TRL and PEFT only if they come after it; others
    need not import what they do not use."""
    if _backend(job) == "unsloth":
        from ernie_pipeline.models.unsloth.process import fast_model

        fast_model()
    else:
        without_unused()
        files_read_once()
        bitsandbytes_without_compiler()


def training_first(job: Job) -> None:
    """For training: see `model_first`. The losses of transformers' that need scipy are of models that find objects."""
    if _backend(job) != "unsloth":
        without_unused("scipy")
    model_first(job)


def model_first(job: Job) -> None:
    """For what always loads its model: see `unsloth_first`; `grouped` begins to read the quantized base of its own.

    Not for a part of the rows, which another generator may answer.
    """
    unsloth_first(job)
    if _backend(job) == "grouped" and not job.get("part"):
        with part("import of torch"):
            import torch

            from ernie_pipeline.models.grouped.read_ahead import begin_to_read
            from ernie_pipeline.models.spec import ModelSpec

        if torch.cuda.is_available():
            torch.cuda.init()  # type: ignore[no-untyped-call]  # not while two threads are at work
            with suppress(ValidationError):  # which is told when the whole job is validated
                begin_to_read(ModelSpec.model_validate(job["spec"]), f"cuda:{os.environ.get('LOCAL_RANK', '0')}")


def _backend(job: Job) -> object:
    spec = job.get("spec")
    return spec.get("backend") if isinstance(spec, dict) else None
