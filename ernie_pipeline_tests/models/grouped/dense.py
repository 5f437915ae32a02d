"""Adapted dense layers, and what they compute by torch's own operations in fp32, with its gradients."""

from collections.abc import Callable, Sequence

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from torch.nn import functional as F

from ernie_pipeline.models.grouped.dense_ops import Norm
from ernie_pipeline.models.grouped.dense_products import Adapted, Rotary
from ernie_pipeline.models.grouped.fused_ops import apply_rotary

Passes = dict[str, torch.Tensor]
Compute = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def layer(inputs: int, outputs: int, rank: int, scale: float, device: str) -> Adapted:
    weight = Params4bit(torch.randn(outputs, inputs) / inputs**0.5, False, None, 64, True, "nf4").to(device)
    a, b = torch.randn(rank, inputs) / inputs**0.5, torch.randn(outputs, rank) / rank**0.5
    return Adapted(weight, a.to(device).requires_grad_(), b.to(device).requires_grad_(), scale)


def passes(compute: Compute, x: torch.Tensor, layers: Sequence[Adapted]) -> Passes:
    """What it gives of x, and the gradients of a weighted sum of that in x and in the layers' adapters."""
    own = x.clone().requires_grad_()
    outs = compute(own)
    weights = [torch.sin(torch.arange(out.numel(), device=x.device) + len(out.T)).view_as(out) for out in outs]
    total = torch.stack([(out.float() * weight).sum() for out, weight in zip(outs, weights, strict=True)]).sum()
    found = {f"output {place}": out.detach() for place, out in enumerate(outs)}
    tensors = [own, *(tensor for one in layers for tensor in (one.lora_A, one.lora_B))]
    grads = torch.autograd.grad(total, tensors)
    return found | {f"gradient {place}": grad for place, grad in enumerate(grads)}


def linears(
    x: torch.Tensor, layers: Sequence[Adapted], norm: Norm | None = None, rotary: Rotary | None = None
) -> list[torch.Tensor]:
    """As `lora_linears`."""
    given = x = x.float()
    if norm is not None:
        x = F.rms_norm(x, x.shape[-1:], norm.weight.float(), norm.epsilon)
    outs = []
    for place, (weight, a, b, scale) in enumerate(layers):
        out = x @ dequantize_4bit(weight.data, weight.quant_state).float().t() + scale * (x @ a.t() @ b.t())
        if rotary is not None and place < rotary.layers:
            heads = out.view(len(x), -1, rotary.size)
            out = apply_rotary(heads, rotary.cos, rotary.sin).flatten(1)
        outs.append(out)
    return outs if norm is None else [*outs, given]


def mlp(x: torch.Tensor, gate_up: Sequence[Adapted], down: Adapted) -> list[torch.Tensor]:
    """As `lora_mlp`."""
    gate, up = linears(x, gate_up)
    return linears(F.silu(gate) * up, [down])


def apart(found: Passes, wanted: Passes) -> float:
    """The largest relative difference."""
    assert found.keys() == wanted.keys()
    return max(float((found[n].float() - wanted[n]).norm() / wanted[n].norm()) for n in wanted)
