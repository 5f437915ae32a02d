"""How much of the GPU's memory no step of a training needs."""

import torch

MARGIN = 4 * 2**30


def spare_memory(standing: int, passing: int, growth: float, limit_gib: float | None) -> int:
    """Bytes of GPU memory that no step needs, or 0, from what a first step showed.

    `standing`: bytes allocated between steps; `passing`: what its passes took on top at their peak; `growth`: tokens of
    the largest pass over those of the first step's largest. What cannot be told beforehand (fragments, a validation
    beside captured passes, which keep their memory) has `MARGIN`.
    """
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    limit = min(total, limit_gib * 2**30) if limit_gib else total
    return max(0, int(limit - standing - passing * max(1.0, growth) - MARGIN))
