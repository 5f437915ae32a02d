"""What a process must do before anything of its work is imported."""

from ernie_pipeline.launch.work import Job


def without_torch(job: Job) -> None:
    """For the split: no torch, and memory that is given back soon."""
    from ernie_pipeline.data.job import prepare_process

    prepare_process()


def unsloth_first(job: Job) -> None:
    """For a model of the backend `unsloth`, which patches transformers, TRL and PEFT only if they come after it."""
    spec = job.get("spec")
    if isinstance(spec, dict) and spec.get("backend") == "unsloth":
        from ernie_pipeline.models.unsloth.process import fast_model

        fast_model()
