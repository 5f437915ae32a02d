"""The product of each expert's rows with its weights, as one kernel that asks the host for nothing.

torch has it for compute capability 9 and 10 (Hopper and Blackwell's data centre cards). On others, an A100 among them,
its `grouped_mm` is a loop that waits for the device, which no CUDA graph can hold
(https://github.com/pytorch/pytorch/issues/186620); there it is a Triton kernel.
"""

import torch
from torch.nn.functional import grouped_mm as torch_grouped_mm

try:
    import triton

    from ernie_pipeline.models.grouped import kernels
except ImportError:  # no CUDA build of torch
    triton = None

TORCH_CAPABILITIES = (9, 10)
"""Major compute capabilities on which torch's product waits for nothing (torch 2.11 to 2.13)."""
MAX_ROWS, COLUMNS, DEPTH = 128, 128, 64
"""The tile of a program, and how deep it reads both factors at a time: of the tiles that fit into the 99 KiB of shared
memory of compute capability 8.6 and 8.9, nearly the fastest on an H100 for 2,400 rows and for 49,000."""


def grouped_mm(rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """[rows, n]: for each expert its `rows` [rows, k] times its `weights` [experts, k, n], summed in fp32.

    `ends` [experts] is the row after each expert's last, int32. `rows` are dense in their last axis, `weights` in one
    of the last two.
    """
    if not rows.is_cuda or _torch_waits_for_nothing(rows):
        return torch_grouped_mm(rows, weights, offs=ends)
    (count, depth), (experts, _, n) = rows.shape, weights.shape
    out = rows.new_empty(count, n)
    columns, height = kernels.tile_size(n, COLUMNS), kernels.tile_size(triton.cdiv(count, experts), MAX_ROWS)
    # an expert's last tile is not full, so there may be one more for each
    kernels.grouped_mm[((count // height + experts) * triton.cdiv(n, columns),)](
        rows,
        weights,
        ends,
        out,
        experts,
        depth,
        n,
        rows.stride(0),
        *weights.stride(),
        out.stride(0),
        EXPERTS=triton.next_power_of_2(experts),
        EVEN=depth % DEPTH == 0,
        ROWS=height,
        COLUMNS=columns,
        DEPTH=DEPTH,
        num_warps=4,
        num_stages=3,
    )
    return out


def _torch_waits_for_nothing(rows: torch.Tensor) -> bool:
    return rows.dtype == torch.bfloat16 and torch.cuda.get_device_capability(rows.device)[0] in TORCH_CAPABILITIES
