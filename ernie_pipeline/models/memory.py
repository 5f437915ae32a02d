"""To tell that memory ran out, and to get it back."""

import gc

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
