"""One step of decoding for a merged ERNIE-4.5 MoE model, as few kernels: 14 a layer where its modules launch about 60.

The shapes depend on the number of rows only, so that one captured CUDA graph serves every length.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ernie_pipeline.models.generation import decode_ops as ops
from ernie_pipeline.models.generation.decode_ops import AttentionTiles, ExpertTiles
from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.memory_plan import cache_shape
from ernie_pipeline.models.generation.quantized_experts import QuantizedExperts, pairs_of, quantized_experts

MODEL_TYPE = "ernie4_5_moe"
CAPABILITY = 8
"""The least major compute capability: its kernels multiply in bfloat16."""


class StepTiles(NamedTuple):
    """Of the kernels that have a choice."""

    attention: AttentionTiles
    gate_up: ExpertTiles
    down: ExpertTiles


HOPPER = {
    16: (ExpertTiles(16, 64, 128, 4, 3), ExpertTiles(16, 128, 64, 4, 5)),
    32: (ExpertTiles(32, 64, 64, 4, 4), ExpertTiles(32, 128, 64, 4, 5)),
    64: (ExpertTiles(64, 128, 64, 8, 4), ExpertTiles(64, 256, 64, 8, 3)),
    128: (ExpertTiles(128, 128, 64, 8, 4), ExpertTiles(128, 256, 64, 8, 3)),
}
"""Of gate_up and of down, by their rows."""
IN_4_BITS = {
    16: (ExpertTiles(16, 64, 64, 4, 3), ExpertTiles(16, 64, 64, 4, 3)),
    32: (ExpertTiles(32, 64, 64, 4, 3), ExpertTiles(32, 64, 64, 4, 3)),
    64: (ExpertTiles(64, 64, 64, 4, 3), ExpertTiles(64, 128, 64, 8, 3)),
    128: (ExpertTiles(128, 64, 64, 4, 3), ExpertTiles(128, 128, 64, 4, 3)),
}
"""The same for weights in 4 bits."""


def tiles_for(
    rows: int, pairs_an_expert: float, kv_heads: int, capability: int, *, quantized: bool = False
) -> StepTiles:
    """What was fastest on an H200 (benchmarks/evaluation/decode_step.py); before Hopper, what fits into 99 KiB."""
    attention = AttentionTiles(32, 2, 3) if rows * kv_heads >= 512 else AttentionTiles(64, 4, 3)
    height = next((most for most in (16, 32, 64) if pairs_an_expert <= 0.75 * most), 128)  # experts have unlike numbers
    if capability >= 9:
        return StepTiles(attention, *(IN_4_BITS if quantized else HOPPER)[height])
    fitting = ExpertTiles(min(height, 64), 64, 64, 4, 3)
    return StepTiles(attention, fitting, fitting)


class Mlp(NamedTuple):
    """A dense layer's, or the shared experts'."""

    gate_up: torch.Tensor
    """[2 x intermediate, hidden]"""
    down: torch.Tensor
    """[hidden, intermediate]"""


class MoE(NamedTuple):
    """A layer's router and experts."""

    router: torch.Tensor
    """[experts, hidden] in fp32."""
    bias: torch.Tensor
    """[experts], added to the probabilities that choose."""
    slots: int
    least: float
    """The least sum by which the chosen experts' probabilities are divided."""
    experts: Any
    """`FusedExperts`, `QuantizedExperts`, or a backend's module that is neither."""
    shared: Mlp | None


class Layer(NamedTuple):
    """A decoder layer's weights."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    output: torch.Tensor
    mlp_norm: torch.Tensor
    mlp: Mlp | MoE


def fits(model: Any) -> bool:
    """Whether `FusedStep` can take the model: by its class, where it is and what it computes in."""
    weight, config = model.get_input_embeddings().weight, model.config
    return (
        ops.available()
        and type(config).model_type == MODEL_TYPE
        and weight.is_cuda
        and torch.cuda.get_device_capability(weight.device)[0] >= CAPABILITY
        and weight.dtype == torch.bfloat16
        and config.hidden_act == "silu"
        and not config.use_bias
        and cache_shape(config)[2] in (32, 64, 128, 256)
    )


class FusedStep:
    """The logits of each row's next token. The model's projections that share an input become views of one weight."""

    def __init__(self, model: Any, tiles: StepTiles | None = None):
        """`tiles`: others than `tiles_for` gives."""
        config, inner = model.config, model.model
        self.embeddings, self.head = inner.embed_tokens.weight, model.lm_head.weight
        self.rotary, self.norm, self.epsilon = inner.rotary_emb, inner.norm.weight, config.rms_norm_eps
        self.layers = [_layer(layer) for layer in inner.layers]
        self.kv_heads = config.num_key_value_heads
        self.capability = torch.cuda.get_device_capability(self.embeddings.device)[0]
        self.tiles = tiles
        self.side = _side_stream(self.embeddings.device)

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        keys: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
        chosen: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """[rows, vocabulary] after `tokens` [rows] at `positions` [rows], int64.

        Each layer's `keys` and `values` [rows, key-value heads, capacity, width] get a column at each row's position;
        what is behind it is not read. `chosen` gets the experts [rows, slots] of each layer that has any.
        """
        residual = F.embedding(tokens, self.embeddings)
        cos, sin = (each[:, 0] for each in self.rotary(residual, positions[:, None]))
        normed = ops.add_norm(residual, self.layers[0].input_norm, self.epsilon)
        norms = [*(layer.input_norm for layer in self.layers[1:]), self.norm]
        for layer, norm, k, v in zip(self.layers, norms, keys, values, strict=True):
            tiles = self.tiles or self._tiles(len(tokens), layer)
            qkv = F.linear(normed, layer.qkv)
            attended = ops.attend(qkv, cos, sin, positions, k, v, tiles.attention)
            normed = self._mlp(residual, F.linear(attended, layer.output), layer, norm, tiles, chosen)
        return F.linear(normed, self.head)

    def _tiles(self, rows: int, layer: Layer) -> StepTiles:
        share, quantized = 1.0, False
        if isinstance(layer.mlp, MoE):
            share = rows * layer.mlp.slots / len(layer.mlp.router)
            quantized = isinstance(layer.mlp.experts, QuantizedExperts)
        return tiles_for(rows, share, self.kv_heads, self.capability, quantized=quantized)

    def _mlp(
        self,
        residual: torch.Tensor,
        attention: torch.Tensor,
        layer: Layer,
        norm: torch.Tensor,
        tiles: StepTiles,
        chosen: list[torch.Tensor] | None,
    ) -> torch.Tensor:
        """What comes after the attention: `residual` has it all added, and `norm` of that is returned."""
        mlp = layer.mlp
        if isinstance(mlp, Mlp):
            normed = ops.add_norm(residual, layer.mlp_norm, self.epsilon, attention)
            return ops.add_norm(residual, norm, self.epsilon, _dense(normed, mlp))
        counts = torch.empty(len(mlp.router), dtype=torch.int32, device=residual.device)
        normed = ops.add_norm(residual, layer.mlp_norm, self.epsilon, attention, counts=counts)
        shared = None
        if mlp.shared is not None:  # beside the routed ones, whose choice leaves most of the device idle
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                shared = _dense(normed, mlp.shared)
        routed = ops.route(normed, mlp.router, mlp.bias, mlp.slots, mlp.least, counts)
        if chosen is not None:
            chosen.append(routed.experts)
        pairs = _pairs(normed, mlp.experts, routed, tiles)
        summed = mlp.experts(normed, routed.experts, routed.weights) if pairs is None else None
        if shared is not None:
            torch.cuda.current_stream().wait_stream(self.side)
        if summed is not None:
            return ops.add_norm(residual, norm, self.epsilon, summed if shared is None else summed + shared)
        return ops.add_norm(residual, norm, self.epsilon, shared, pairs, routed.weights)


def _pairs(hidden: torch.Tensor, experts: Any, routed: ops.Routed, tiles: StepTiles) -> torch.Tensor | None:
    """What each pair of a token and a slot gives, to be weighted and summed; None where only the module knows."""
    if isinstance(experts, QuantizedExperts):
        return pairs_of(hidden, experts, routed, tiles.gate_up, tiles.down)
    if isinstance(experts, FusedExperts):
        active = ops.expert_product(hidden, experts.gate_up_proj, routed, tiles.gate_up, gate_up=True)
        return ops.expert_product(active, experts.down_proj, routed, tiles.down, gate_up=False)
    return None


@functools.cache
def _side_stream(device: torch.device) -> Any:
    """One for all steps: cuBLAS keeps memory for each stream that it was called on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _dense(hidden: torch.Tensor, mlp: Mlp) -> torch.Tensor:
    return F.linear(ops.gated(F.linear(hidden, mlp.gate_up)), mlp.down)


def _layer(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    own: Mlp | MoE
    if hasattr(mlp, "experts"):
        gate = mlp.gate
        shared = None if mlp.shared_experts is None else _joined_mlp(mlp.shared_experts)
        bias = gate.moe_statics.e_score_correction_bias.view(-1)
        experts = quantized_experts(mlp.experts, layer.input_layernorm.weight.dtype) or mlp.experts
        own = MoE(gate.weight.float(), bias, gate.top_k, gate.norm_min, experts, shared)
    else:
        own = _joined_mlp(mlp)
    return Layer(
        layer.input_layernorm.weight,
        joined(attention.q_proj, attention.k_proj, attention.v_proj),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        own,
    )


def _joined_mlp(mlp: Any) -> Mlp:
    return Mlp(joined(mlp.gate_proj, mlp.up_proj), mlp.down_proj.weight)


@torch.no_grad()
def joined(*layers: Any) -> torch.Tensor:
    """The weights of linear layers below one another; the layers' own become views of that, so that none is held
    twice. Asked again, the same."""
    whole: torch.Tensor | None = getattr(layers[0], "joined", None)
    if whole is None or whole.data_ptr() != layers[0].weight.data_ptr():
        layers[0].joined = whole = torch.cat([layer.weight for layer in layers])
        start = 0
        for layer in layers:
            end = start + len(layer.weight)
            layer.weight = nn.Parameter(whole[start:end], requires_grad=False)
            start = end
    return whole
