"""The memory that generation takes, and what there is of it."""

from typing import Any

import torch

WORKING_BYTES = 6 * 2**30
"""What prefilling, logits and recorded steps take beside weights and cache, with something to spare."""


def cache_shape(config: Any) -> tuple[int, int, int]:
    """Layers, key-value heads and the width of a head in the model's cache of keys and values."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def row_bytes(config: Any, length: int, dtype: torch.dtype) -> int:
    """The bytes of one row of `length` tokens in the cache."""
    layers, heads, width = cache_shape(config)
    return 2 * layers * heads * width * length * dtype.itemsize


def rows_that_fit(bytes_a_row: int, free: int) -> int:
    """How many rows a cache may have beside what else is needed, within `free` bytes."""
    return max(0, free - WORKING_BYTES) // bytes_a_row


def free_bytes(device: torch.device) -> int:
    """What torch may still allocate on a CUDA device: free, or kept by torch unused, and within the process's limit."""
    free, total = torch.cuda.mem_get_info(device)
    used, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + kept - used, limit - used)
