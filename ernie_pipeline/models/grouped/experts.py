"""A layer's routed experts as two 4-bit stacks and their LoRA as six: every expert in one product, none left out.

64 experts in 27 layers are 5,184 linear layers, each with a handful of tokens: their Python and their launches took all
of the time. Here a layer is one module, and `products.py` computes it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline.models.grouped.fp8_mm import largest, what_fp8_lacks
from ernie_pipeline.models.grouped.nf4_mm import reads_nf4
from ernie_pipeline.models.grouped.products import (
    Experts,
    LoraPair,
    Stack,
    grouped_experts,
    own_pairs,
)
from ernie_pipeline.utils.errors import PipelineError

TARGETS = tuple(target for targets in FUSED_PROJECTIONS.values() for target in targets)

SUMMED_AT_A_TIME = 8
"""Experts whose weights are there in fp32 while an adapter is added: 126 MB of them at the real size."""


class ExpertsAdapter(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """LoRA on every expert of a layer: for each target A [experts, rank, inputs] and B [experts, outputs, rank].

    For PEFT it is one of its own layers, so that `disable_adapter` reaches it.
    """

    def __init__(
        self, rank: int, alpha: float, shapes: dict[str, tuple[int, int, int]], device: Any, fresh: bool = True
    ):
        """`shapes`: (experts, outputs, inputs) of each target. A begins uniform within 1 / sqrt(inputs), B zero, in
        fp32, as PEFT begins them; not `fresh`, A has values that somebody still has to read."""
        super().__init__()
        self.scale = alpha / rank
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        for target, (experts, outputs, inputs) in shapes.items():
            shape = (experts, rank, inputs)
            uniform = torch.empty(shape).uniform_(-1, 1) / math.sqrt(inputs) if fresh else torch.empty(shape)
            self.lora_A[target] = nn.Parameter(uniform.to(device))
            self.lora_B[target] = nn.Parameter(torch.zeros(experts, outputs, rank, device=device))
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def pairs(self) -> dict[str, LoraPair]:
        """A and B of each target."""
        return {target: LoraPair(self.lora_A[target], self.lora_B[target]) for target in self.lora_A}

    def parameters_of(self, target: str) -> tuple[nn.Parameter, ...]:
        """A and B of a target, or nothing."""
        return (self.lora_A[target], self.lora_B[target]) if target in self.lora_A else ()

    def enable_adapters(self, enabled: bool) -> None:
        """For PEFT's `disable_adapter`."""
        self._disable_adapters = not enabled

    def set_adapter(self, adapter_names: Any, inference_mode: bool = False) -> None:
        """PEFT names the active adapter; there is one."""


class GroupedExperts(nn.Module):
    """The experts of one layer: hidden states [tokens, hidden], expert numbers and weights [tokens, k] in, hidden out.

    It takes the place of transformers' fused experts module. `gate_up_proj` (of shape [experts, 2I, hidden]) and
    `down_proj` ([experts, hidden, I]) are quantized `Params4bit`.
    """

    capturable = True
    fp8 = False
    """Whether products of many rows are made in 8-bit floats while it is trained."""

    def __init__(self, gate_up: Any, down: Any):
        super().__init__()
        self.gate_up_proj, self.down_proj = gate_up, down
        self.experts, gate_and_up, self.hidden = gate_up.quant_state.shape
        self.inner = gate_and_up // 2
        self.adapter: ExpertsAdapter | None = None
        self.dequantized: dict[str, torch.Tensor] = {}
        """What `keep_dequantized` holds."""

    def add_adapter(self, rank: int, alpha: float, targets: Sequence[str], fresh: bool = True) -> None:
        """An adapter on those of `targets` that are experts', see `ExpertsAdapter`."""
        inward = (self.experts, self.inner, self.hidden)
        shapes = {"gate_proj": inward, "up_proj": inward, "down_proj": (self.experts, self.hidden, self.inner)}
        own = {target: shapes[target] for target in TARGETS if target in targets}
        if own:
            self.adapter = ExpertsAdapter(rank, alpha, own, self.gate_up_proj.device, fresh)

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        adapter = self.adapter_in_use
        pairs = {} if adapter is None else adapter.pairs()
        scale = 1.0 if adapter is None else adapter.scale
        stacks = {fused: self._stack(fused) for fused in FUSED_PROJECTIONS}
        return grouped_experts(hidden, chosen, weights, Experts(stacks, pairs, scale, self.fp8 and self.training))

    def reads_nf4(self, tokens: int, slots: int) -> bool:
        """Whether a pass over so many tokens, each with so many experts, has no need of dequantized weights."""
        return self.fp8 or all(reads_nf4(getattr(self, fused), tokens * slots) for fused in FUSED_PROJECTIONS)

    def train_in_fp8(self) -> None:
        """From now on make products of many rows in 8-bit floats in training. Raises `PipelineError` where they cannot
        be made."""
        for weight in (getattr(self, fused) for fused in FUSED_PROJECTIONS):
            if missing := what_fp8_lacks(weight):
                raise PipelineError(f"training.fp8 = true {missing}; set it to false")
            largest(weight)
        self.fp8 = True

    def keep_dequantized(self) -> int:
        """Hold both stacks in 16 bits too from now on, so that no pass dequantizes them; the bytes that this takes."""
        taken = self.dequantized_bytes
        for fused in FUSED_PROJECTIONS:
            pairs = own_pairs(fused, self.adapter.pairs() if self.adapter else {})
            self.dequantized[fused] = self._stack(fused).augmented(pairs, getattr(self, fused).quant_state.dtype)
        return taken

    def drop_dequantized(self) -> None:
        """Give that memory back."""
        self.dequantized = {}

    @property
    def dequantized_bytes(self) -> int:
        """What `keep_dequantized` takes in 16 bits, the adapter's columns included."""
        pairs = self.adapter.pairs() if self.adapter else {}
        shapes = [self._stack(fused).augmented_shape(own_pairs(fused, pairs)) for fused in FUSED_PROJECTIONS]
        return 2 * sum(map(math.prod, shapes))

    def _stack(self, fused: str) -> Stack:
        return Stack(getattr(self, fused), self.dequantized.get(fused))

    @property
    def adapter_in_use(self) -> ExpertsAdapter | None:
        """The adapter, if there is one and it is not switched off."""
        return None if self.adapter is None or self.adapter.disable_adapters else self.adapter

    def dense(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of both stacks with the adapter in them, in the shapes of transformers' fused experts.

        The sum is made in fp32 and rounded once to the type that the base is computed in.
        """
        return self._dense("gate_up_proj"), self._dense("down_proj")

    def _dense(self, fused: str) -> torch.Tensor:
        weight, adapter = getattr(self, fused), self.adapter_in_use
        out = torch.empty(weight.quant_state.shape, dtype=weight.quant_state.dtype, device=weight.device)
        dequantize(weight, out)
        for rows, target in zip(out.chunk(len(FUSED_PROJECTIONS[fused]), dim=1), FUSED_PROJECTIONS[fused], strict=True):
            if adapter is not None and target in adapter.lora_A:
                pair = adapter.lora_A[target].detach(), adapter.lora_B[target].detach()
                parts = (torch.split(each, SUMMED_AT_A_TIME) for each in (rows, *pair))
                for own, a, b in zip(*parts, strict=True):
                    own.copy_(torch.baddbmm(own.float(), b, a, alpha=adapter.scale))
        return out

    def parameters_of(self, target: str) -> tuple[int, int, int]:
        """(modules, base parameters, those of them in 4 bits) of one of the `TARGETS`."""
        weight = self.down_proj if target == "down_proj" else self.gate_up_proj
        size = self.experts * self.hidden * self.inner
        return self.experts, size, size if weight.bnb_quantized else 0
