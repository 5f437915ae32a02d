"""Routed experts for inference: each product one kernel for all the experts of a layer.

transformers has such a module too; in this one no step asks the device for a value, so that a CUDA graph can hold it,
and no other package replaces its forward pass.
"""

from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.grouped.grouped_mm import grouped_mm


class FusedExperts(nn.Module):
    """The experts of one layer: `gate_up` [experts, 2 x intermediate, hidden], `down` [experts, hidden, intermediate].

    Takes and gives what `experts.UnfusedExperts` does.
    """

    capturable = True
    numbers: torch.Tensor

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor, act_fn: Any):
        super().__init__()
        self.gate_up_proj = nn.Parameter(gate_up, requires_grad=False)
        self.down_proj = nn.Parameter(down, requires_grad=False)
        self.act_fn = act_fn
        numbers = torch.arange(len(gate_up), dtype=torch.int16, device=gate_up.device)
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        # (token, slot) pairs, expert by expert; 16 bits, since the time that a device sorts goes with a key's bits
        expert_of_pair, order = chosen.flatten().to(torch.int16).sort(stable=True)
        ends = torch.searchsorted(expert_of_pair, self.numbers, right=True, out_int32=True)
        pairs = hidden[order // chosen.shape[1]]
        gate, up = grouped_mm(pairs, self.gate_up_proj.transpose(1, 2), ends).chunk(2, dim=-1)
        outputs = grouped_mm(self.act_fn(gate) * up, self.down_proj.transpose(1, 2), ends)
        of_pair = torch.empty_like(outputs).index_copy_(0, order, outputs).view(*chosen.shape, -1)
        return (of_pair * weights.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)

    def dense(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `experts`."""
        return self.gate_up_proj, self.down_proj
