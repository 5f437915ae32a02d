"""ERNIE-4.5's way from concatenated documents to their loss: no padding, and nothing seen across documents.

transformers' own forward wants rows of equal width, builds a mask of width x width, waits for the GPU to look whether
documents share a row, and holds the logits of all tokens in fp32 (3.2 GiB for 8,192). Here attention is a kernel for
sequences of varying length, and the loss is taken a piece of the vocabulary's product at a time, with its gradient.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ernie_pipeline.models.documents import NOT_COUNTED
from ernie_pipeline.models.grouped import lora_linear
from ernie_pipeline.models.grouped.dense_ops import Norm
from ernie_pipeline.models.grouped.dense_products import Rotary, rms_norm
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.fused_ops import loss_and_gradient, token_losses
from ernie_pipeline.models.grouped.lora_linear import gated_mlp, project

CHUNK = 2048
"""Tokens whose logits exist at a time: 103,424 of them in 16 bits are 0.4 GiB."""


class Sequences(NamedTuple):
    """Where the documents lie, and the angles of their tokens' positions."""

    cu_seqlens: torch.Tensor
    """[documents + 1] int32: where each begins and the last ends."""
    max_seqlen: int
    cos: torch.Tensor
    """[tokens, head size / 2] of the rotary embedding's angles, as is `sin`."""
    sin: torch.Tensor


class Kept(NamedTuple):
    """What is held in 16 bits too."""

    dense: int
    """How many dense weights; those of layers that are computed together count as one."""
    layers: int
    """Of how many layers the experts'."""


def keep_dequantized(model: Any, spare: int, tokens: int) -> Kept:
    """Hold what `spare` bytes allow in 16 bits: first dense layers, which are few bytes and many launches, and then the
    experts of as many layers as there are bytes for. With 0, nothing any more.

    Experts are not held where a pass over `tokens`, the most that there are, reads them in 4 bits. What is dequantized
    at each step otherwise is the same, so nothing but the time changes.
    """
    dense = number = 0
    for group in _dense_groups(model):
        needed = lora_linear.dequantized_bytes(group)
        fits = needed <= spare
        (lora_linear.keep_dequantized if fits else lora_linear.drop_dequantized)(group)
        spare, dense = spare - needed * fits, dense + fits
    for experts in (module for module in model.modules() if isinstance(module, GroupedExperts)):
        experts.drop_dequantized()
        if experts.dequantized_bytes <= spare and not experts.reads_nf4(tokens, model.config.moe_k):
            spare -= experts.keep_dequantized()
            number += 1
    return Kept(dense, number)


def _dense_groups(model: Any) -> Iterator[list[Any]]:
    """The adapted dense layers, those together that `project` is given together."""
    for module in model.modules():
        for names in (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)):
            layers = [getattr(module, name, None) for name in names]
            if all(map(lora_linear.is_sped_up, layers)):
                yield layers


def padding_free_loss(
    model: Any, inputs: dict[str, torch.Tensor], max_seqlen: int, temperature: float = 1.0
) -> torch.Tensor:
    """The sum of the negative log-likelihood over the counted tokens, in nats, by an `Ernie4_5_MoeForCausalLM`.

    `inputs`: input_ids, labels and position_ids [1, tokens], and cu_seqlens [documents + 1], int32, where each document
    begins and the last ends; `max_seqlen` is at least the tokens of the longest. A document's first token has to have
    the label `NOT_COUNTED`. With weights [1, tokens], fp32 and of either sign, each token's part of the sum, that of
    predicting it, is multiplied by its own. The likelihood is that of the logits divided by `temperature`.
    """
    labels = inputs["labels"][0]
    with torch.autocast(labels.device.type, enabled=False):  # every product here says itself what it is made in
        hidden = _last_hidden(model, inputs, max_seqlen)
        next_weights = F.pad(inputs["weights"][0, 1:], (0, 1)) if "weights" in inputs else None
        head = model.lm_head.weight
        loss: torch.Tensor = _HeadLoss.apply(hidden, head, _next(labels), next_weights, temperature)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def padding_free_logprobs(
    model: Any, inputs: dict[str, torch.Tensor], max_seqlen: int, temperature: float
) -> torch.Tensor:
    """The log-probability [tokens] of each counted token in nats, of the logits divided by `temperature`; 0 for the
    others. `inputs` as of `padding_free_loss`; fp32."""
    labels = inputs["labels"][0]
    with torch.autocast(labels.device.type, enabled=False):
        hidden, next_labels = _last_hidden(model, inputs, max_seqlen), _next(labels)
        losses = [
            token_losses(_logits(hidden[start : start + CHUNK], model.lm_head.weight, temperature), labels_of_chunk)
            for start, labels_of_chunk in zip(
                range(0, len(hidden), CHUNK), torch.split(next_labels, CHUNK), strict=True
            )
        ]
    return F.pad(-torch.cat(losses)[:-1], (1, 0))


def _next(labels: torch.Tensor) -> torch.Tensor:
    return F.pad(labels[1:], (0, 1), value=NOT_COUNTED)


def _last_hidden(model: Any, inputs: dict[str, torch.Tensor], max_seqlen: int) -> torch.Tensor:
    """What the head's product is made with [tokens, hidden]."""
    inner = model.model
    hidden = inner.embed_tokens(inputs["input_ids"][0])
    sequences = Sequences(inputs["cu_seqlens"], max_seqlen, *_angles(inner.rotary_emb, inputs["position_ids"][0]))
    for layer in inner.layers:
        if layer.gradient_checkpointing and model.training:
            hidden = checkpoint(_layer, layer, hidden, sequences, use_reentrant=False, preserve_rng_state=False)
        else:
            hidden = _layer(layer, hidden, sequences)
    return rms_norm(hidden, _norm(inner.norm))[0]


def _logits(hidden: torch.Tensor, head: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divided where they are summed up, before they are rounded to 16 bits."""
    if temperature == 1:
        return hidden @ head.t()
    return torch.addmm(hidden.new_zeros(1), hidden, head.t(), beta=0, alpha=1 / temperature)


def _angles(rotary: Any, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angles = positions[:, None].float() * rotary.inv_freq.float()
    return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling


def _layer(layer: Any, hidden: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    hidden = _attention(layer.self_attn, _norm(layer.input_layernorm), hidden, sequences)
    block = layer.mlp
    after, hidden = rms_norm(hidden, _norm(layer.post_attention_layernorm))
    if not hasattr(block, "experts"):
        return hidden + _swiglu_mlp(block, after)
    if block.shared_experts is not None:
        hidden = hidden + _swiglu_mlp(block.shared_experts, after)
    _, weights, chosen = block.gate(after)
    routed: torch.Tensor = block.experts(after, chosen, weights)
    return hidden + routed


def _swiglu_mlp(mlp: Any, hidden: torch.Tensor) -> torch.Tensor:
    return gated_mlp(hidden, mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _norm(norm: Any) -> Norm:
    return Norm(norm.weight, norm.variance_epsilon)


def _attention(attention: Any, norm: Norm, hidden: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    """Of `hidden` normalized, added to it."""
    rotary = Rotary(sequences.cos, sequences.sin, attention.head_dim, layers=2)
    layers = attention.q_proj, attention.k_proj, attention.v_proj
    *projected, hidden = project(hidden, *layers, norm=norm, rotary=rotary)
    query, key, value = (each.view(len(hidden), -1, attention.head_dim) for each in projected)
    attend = _flash if hidden.is_cuda and hidden.dtype != torch.float32 else _document_by_document
    out: torch.Tensor = attention.o_proj(attend(query, key, value, sequences, attention.scaling).flatten(1))
    return hidden + out


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: Sequences, scale: float
) -> torch.Tensor:
    """Causal attention within each document; query, key and value [tokens, heads, size], fewer heads of the latter two.

    The operator behind torch.nn.attention.varlen, whose own arguments differ from one version of torch to the next.
    """
    cu_seqlens, max_seqlen = sequences.cu_seqlens, sequences.max_seqlen
    out: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, True, False, scale=scale
    )[0]
    return out


def _document_by_document(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: Sequences, scale: float
) -> torch.Tensor:
    """As `_flash`, where that kernel is not: on a CPU, and in fp32."""
    lengths = sequences.cu_seqlens.diff().tolist()
    outs = []
    for q, k, v in zip(*(torch.split(heads, lengths) for heads in (query, key, value)), strict=True):
        q, k, v = (heads.transpose(0, 1)[None] for heads in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


class _HeadLoss(torch.autograd.Function):
    """The sum of the negative log-likelihood over the counted tokens, weighted or not; its gradient is made on the
    way."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Any, head: Any, labels: Any, weights: Any, temperature: float
    ) -> torch.Tensor:
        total = torch.zeros((), device=hidden.device)
        grads = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = _logits(hidden[rows], head, temperature)
            total += loss_and_gradient(logits, labels[rows], None if weights is None else weights[rows])
            if grads is not None:
                torch.mm(logits, head, out=grads[rows])
        ctx.save_for_backward(grads)
        ctx.temperature = temperature
        return total

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:  # type: ignore[override]
        (grads,) = ctx.saved_tensors
        return grads * (grad / ctx.temperature), None, None, None, None
