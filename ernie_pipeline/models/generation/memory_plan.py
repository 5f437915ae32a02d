"""The memory that generation takes, and what there is of it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.memory import round_up

WORKING_BYTES = 4 * 2**30
"""What prefilling, logits and captured steps (adapters in 16 bits too) take beside weights and cache, with something to
spare."""

LENGTH_STEP = 128
"""Tokens by which the part of the cache that is read grows: a row has a multiple of them."""
LEAST_ROWS = 8
"""Where the cache holds fewer rows (and not all, if they are fewer) nothing is merged."""
QUANTIZED_TIME = 1.8
"""What a step takes for experts in 4 bits, beside merged ones: 0.7 ms a layer, not 0.39 (400 rows, H200)."""


class Weights(NamedTuple):
    """The bytes of a merged model's weights."""

    rest: int
    """All but the routed experts'."""
    experts: Mapping[str, int]
    """Each layer's routed experts', by the name of their module."""
    capturable: bool
    """Whether a CUDA graph can hold a step with experts that are not merged."""


def experts_to_leave_quantized(weights: Weights, rows: int, bytes_a_row: int, free: int) -> list[str] | None:
    """Which experts to leave in 4 bits, so that `rows` prompts are answered soonest; None if no choice fits.

    What merged experts take the cache lacks, of `bytes_a_row`, and the prompts are answered in more batches. A batch's
    steps take as long as the bytes of weights, merged or in their stead; what a row adds is the same in any batch.
    """
    names, soonest, best = list(weights.experts), math.inf, None
    for number in range(len(names) + 1) if weights.capturable else [len(names)]:
        merged, quantized = (sum(weights.experts[name] for name in part) for part in (names[:number], names[number:]))
        fit = min(rows, rows_that_fit(bytes_a_row, free - weights.rest - merged))
        if fit < min(rows, LEAST_ROWS):
            break
        time = math.ceil(rows / fit) * (weights.rest + merged + QUANTIZED_TIME * quantized)
        if time < soonest:
            soonest, best = time, names[number:]
    return best


def cache_shape(config: Any) -> tuple[int, int, int]:
    """Layers, key-value heads and the width of a head in the model's cache of keys and values."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def row_bytes(config: Any, length: int, dtype: torch.dtype) -> int:
    """The bytes in the cache of one row of `length` tokens."""
    layers, heads, width = cache_shape(config)
    return 2 * layers * heads * width * round_up(length, LENGTH_STEP) * dtype.itemsize


def rows_that_fit(bytes_a_row: int, free: int) -> int:
    """How many rows a cache may have beside what else is needed, within `free` bytes."""
    return max(0, free - WORKING_BYTES) // bytes_a_row


def free_bytes(device: torch.device) -> int:
    """What torch may still allocate on a CUDA device: free, or reserved and unused, and within the process's limit."""
    free, total = torch.cuda.mem_get_info(device)
    used, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + reserved - used, limit - used)
