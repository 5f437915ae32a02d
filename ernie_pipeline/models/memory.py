"""To tell that memory ran out, to get it back, and what to say when nothing helps."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ernie_pipeline.models.copies import wait_until_taken
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


def to_device(values: Any, device: torch.device) -> torch.Tensor:
    """Numbers as a tensor there. A CUDA device is not waited for, as `torch.tensor(values, device=device)` does."""
    host = torch.tensor(values)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


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


@contextmanager
def capture_graph(graph: torch.cuda.CUDAGraph, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
    """Capture the launches inside into `graph`, with the arguments of `torch.cuda.graph`.

    Raises `torch.OutOfMemoryError` where memory runs out meanwhile. torch does not: the end of a capture that an error
    broke off fails too, for another reason, and the first error is but the context of the second.
    """
    wait_until_taken()
    try:
        with torch.cuda.graph(graph, pool=pool, capture_error_mode=capture_error_mode):
            yield
    except RuntimeError as error:
        if error.__context__ and is_out_of_memory(error.__context__):
            raise torch.OutOfMemoryError("memory ran out while a CUDA graph was captured") from error
        raise


def round_up(number: int, multiple: int) -> int:
    """The next multiple, or the number itself if it is one."""
    return -(-number // multiple) * multiple
