"""To tell that memory ran out, to get it back, and what to say when nothing helps."""

import gc

import torch

from ernie_pipeline.utils.errors import PipelineError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is CUDA's or Python's own error for it, or the one that torch raises on a CPU."""
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def free_memory() -> None:
    """Hand back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def does_not_fit(what: str, limit_gib: float | None) -> PipelineError:
    """The error for when the smallest piece of work does not fit; `limit_gib`: what is allowed of a GPU, if not all."""
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
        allowed = f"{limit_gib:g} GiB, which execution.memory_limit_gib or gpu.memory_gib allows" if limit_gib else ""
        where = allowed or f"this GPU's {total:.0f} GiB"
        more = "raise that limit" if limit_gib and limit_gib < total else f"use a GPU with more than {total:.0f} GiB"
    else:
        where, more = "this machine's memory", "use a machine with more of it"
    return PipelineError(
        f"{what} does not fit into {where}, one sample at a time and with gradient checkpointing: lower "
        f"split.max_tokens or lora.rank, or {more}"
    )
