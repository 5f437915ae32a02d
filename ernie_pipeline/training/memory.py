"""How much of the GPU's memory a training may take, what of it is spare, and what would need less of it."""

import torch

from ernie_pipeline.utils.errors import PipelineError

MARGIN = 4 * 2**30


def no_room(what: str, limit_gib: float | None) -> PipelineError:
    """The error for when the smallest piece of work does not fit."""
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
        allowed = f"{limit_gib:g} GiB, which training.memory_limit_gib or gpu.memory_gib allows" if limit_gib else ""
        where = allowed or f"this GPU's {total:.0f} GiB"
        more = "raise that limit" if limit_gib and limit_gib < total else f"use a GPU with more than {total:.0f} GiB"
    else:
        where, more = "this machine's memory", "use a machine with more of it"
    return PipelineError(
        f"{what} does not fit into {where}, one sample at a time and with gradient checkpointing: lower "
        f"split.max_tokens or lora.rank, or {more}"
    )


def spare_memory(standing: int, passing: int, growth: float, limit_gib: float | None) -> int:
    """Bytes of GPU memory that no step needs, or 0, from what a first step showed.

    `standing`: bytes allocated between steps; `passing`: what its passes took on top at their peak; `growth`: tokens of
    the largest pass over those of the first step's largest. What cannot be told beforehand (fragments, a validation
    beside recorded passes, which keep their memory) has `MARGIN`.
    """
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    limit = min(total, limit_gib * 2**30) if limit_gib else total
    return max(0, int(limit - standing - passing * max(1.0, growth) - MARGIN))


def smaller_limit(*limits_gib: float | None) -> float | None:
    """The tightest of several limits, None where there is none."""
    return min((limit for limit in limits_gib if limit), default=None)
