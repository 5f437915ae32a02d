"""Routed experts as ordinary `nn.Linear` layers, so that 4-bit quantization and LoRA reach each of them.

transformers 5 keeps a layer's experts as two 3-D parameters, which bitsandbytes skips and PEFT remaps; here they are
taken apart again into gate, up and down projections per expert, with the names that ERNIE's own checkpoint has.

A module of routed experts, this one or another backend's, has the method `dense`: gate and up [experts, 2 x
intermediate, hidden] and down [experts, hidden, intermediate], dequantized and with the adapter; and tells in
`capturable` whether a CUDA graph can hold its forward pass (`generation/merged.py` asks for both).
"""

from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.architecture import is_plain_experts
from ernie_pipeline.models.weights import dense_weight


class Expert(nn.Module):
    """One expert's gated MLP: down(act(gate(x)) * up(x))."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor, act_fn: Any):
        super().__init__()
        gate, up = gate_up.chunk(2, dim=0)
        self.gate_proj, self.up_proj, self.down_proj = _linear(gate), _linear(up), _linear(down)
        self.act_fn = act_fn

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))  # type: ignore[no-any-return]


class UnfusedExperts(nn.ModuleList):
    """The experts of one layer, each run on the tokens that the router sent to it.

    Takes hidden states [tokens, hidden], expert numbers and weights [tokens, k]; gives [tokens, hidden].
    """

    capturable = False  # it asks the device how many tokens each expert has

    def __init__(self, fused: Any):
        super().__init__(
            Expert(gate_up, down, fused.act_fn)
            for gate_up, down in zip(fused.gate_up_proj.detach(), fused.down_proj.detach(), strict=True)
        )

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        order = chosen.flatten().argsort(stable=True)  # (token, slot) pairs, expert by expert
        counts = torch.bincount(chosen.flatten(), minlength=len(self)).tolist()
        tokens_of_expert = torch.split(order // chosen.shape[1], counts)
        outputs = [expert(hidden[own]) for expert, own in zip(self, tokens_of_expert, strict=True) if len(own)]
        # back in the order of the pairs, then summed: adding into place has another order each time on CUDA
        of_pair = torch.cat(outputs)[order.argsort()].view(*chosen.shape, -1)
        return (of_pair * weights.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)

    @torch.no_grad()
    def dense(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See the module's docstring."""
        gate_up = [torch.cat([dense_weight(expert.gate_proj), dense_weight(expert.up_proj)]) for expert in self]
        return torch.stack(gate_up), torch.stack([dense_weight(expert.down_proj) for expert in self])


def unfuse_experts(model: nn.Module) -> int:
    """Replace every fused experts module of `model` in place; how many layers had one.

    Each layer's fused weights are let go before the next is taken apart, so memory holds one layer twice at most.
    """
    layers = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if is_plain_experts(child)
    ]
    for parent, name in layers:
        setattr(parent, name, UnfusedExperts(getattr(parent, name)))
    return len(layers)


def _linear(weight: torch.Tensor) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return linear
