"""To tell that memory ran out, and to get it back."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is CUDA's or Python's own error for it, or the one that torch raises on a CPU."""
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def free_memory() -> None:
    """Hand back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def capture_graph(graph: torch.cuda.CUDAGraph, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
    """Capture the launches inside into `graph`, with the arguments of `torch.cuda.graph`.

    Raises `torch.OutOfMemoryError` where memory runs out meanwhile. torch does not: the end of a capture that an error
    broke off fails too, for another reason, and the first error is but the context of the second.
    """
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
