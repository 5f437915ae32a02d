"""The memory that generation takes, and what there is of it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

WORKING_BYTES = 4 * 2**30
"""What prefilling, logits and recorded steps take beside weights and cache, with something to spare."""

LENGTH_STEP = 128
"""Tokens by which the part of the cache that is read grows: a row has a multiple of them."""
LEAST_ROWS = 8
"""With room for fewer rows in the cache (or for all, if they are fewer) nothing is merged."""
UNPACKING = 2.25
"""What a step moves for experts in 4 bits, beside merged ones: it reads 4 bits, writes 16 and reads these."""


class Weights(NamedTuple):
    """The bytes of a merged model's weights."""

    rest: int
    """All but the routed experts'."""
    experts: Mapping[str, int]
    """Each layer's routed experts', by the name of their module."""
    recordable: bool
    """Whether a step can be recorded with experts that are not merged."""


def experts_to_leave(weights: Weights, rows: int, bytes_a_row: int, free: int) -> list[str] | None:
    """Which experts to leave in 4 bits, so that `rows` prompts are answered soonest; None if no way has room.

    What merged experts take the cache lacks, of `bytes_a_row`, and the prompts are answered in more waves. A wave's
    steps take as long as the bytes of weights that they move; what a row adds is the same in any wave.
    """
    names, soonest, best = list(weights.experts), math.inf, None
    for number in range(len(names) + 1) if weights.recordable else [len(names)]:
        merged, left = (sum(weights.experts[name] for name in part) for part in (names[:number], names[number:]))
        fit = min(rows, rows_that_fit(bytes_a_row, free - weights.rest - merged))
        if fit < min(rows, LEAST_ROWS):
            break
        time = math.ceil(rows / fit) * (weights.rest + merged + UNPACKING * left)
        if time < soonest:
            soonest, best = time, names[number:]
    return best


def cache_shape(config: Any) -> tuple[int, int, int]:
    """Layers, key-value heads and the width of a head in the model's cache of keys and values."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def row_bytes(config: Any, length: int, dtype: torch.dtype) -> int:
    """The bytes in the cache of one row that has room for `length` tokens."""
    layers, heads, width = cache_shape(config)
    return 2 * layers * heads * width * rounded_up(length, LENGTH_STEP) * dtype.itemsize


def rounded_up(number: int, step: int) -> int:
    """To a multiple of `step`."""
    return -(-number // step) * step


def rows_that_fit(bytes_a_row: int, free: int) -> int:
    """How many rows a cache may have beside what else is needed, within `free` bytes."""
    return max(0, free - WORKING_BYTES) // bytes_a_row


def free_bytes(device: torch.device) -> int:
    """What torch may still allocate on a CUDA device: free, or kept by torch unused, and within the process's limit."""
    free, total = torch.cuda.mem_get_info(device)
    used, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + kept - used, limit - used)
