"""Fused operations, as they are computed on a CPU, against torch's own operations and autograd in float64.

The kernels on CUDA are held against these, see `gpu/test_kernels.py`.
"""

import pytest
import torch
from torch.nn import functional as F

from ernie_pipeline.models.documents import NOT_COUNTED
from ernie_pipeline.models.grouped import fused_ops

ROWS, INNER = 7, 12


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double().requires_grad_()


def close(found: torch.Tensor | None, wanted: torch.Tensor | None) -> None:
    assert found is not None
    assert wanted is not None
    assert found.shape == wanted.shape
    assert (found - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("weighted", [True, False])
def test_swiglu_and_its_gradients(weighted: bool) -> None:
    gate, up = random(ROWS, 2 * INNER).chunk(2, dim=1)  # views with longer rows, as the grouped products have them
    weight = random(ROWS, seed=1) if weighted else None
    grad = random(ROWS, INNER, seed=2)
    out, grads, recomputed = (torch.full((ROWS, width), 7.0) for width in (INNER + 5, 2 * INNER + 5, INNER))
    fused_ops.swiglu_into(gate, up, weight, out)
    grad_weight = fused_ops.swiglu_backward(gate, up, weight, grad, grads, recomputed)

    g, u, w = exact(gate), exact(up), exact(torch.ones(ROWS) if weight is None else weight)
    wanted = w[:, None] * F.silu(g) * u
    wanted.backward(grad.double())
    close(out[:, :INNER], wanted)
    assert torch.equal(recomputed, out[:, :INNER])
    assert (out[:, INNER:] == 7).all()  # the adapter's columns are somebody else's
    assert (grads[:, 2 * INNER :] == 7).all()
    assert g.grad is not None
    assert u.grad is not None
    close(grads[:, : 2 * INNER], torch.cat([g.grad, u.grad], dim=1))
    if weighted:
        close(grad_weight, w.grad)
    else:
        assert grad_weight is None


def test_swiglu_as_a_function_of_autograd_s() -> None:
    gate, up, grad = random(ROWS, INNER), random(ROWS, INNER, seed=1), random(ROWS, INNER, seed=2)
    found, wanted = [[t.clone().requires_grad_() for t in (gate, up)] for _ in range(2)]
    fused_ops.swiglu(*found).backward(grad)  # type: ignore[no-untyped-call]
    (F.silu(wanted[0]) * wanted[1]).backward(grad)
    for one, other in zip(found, wanted, strict=True):
        close(one.grad, other.grad)


def test_slots_are_summed_for_each_token() -> None:
    rows = random(12, 9)[:, :6]
    row_of_slot = torch.randperm(12, generator=torch.Generator().manual_seed(2)).view(4, 3)
    found = fused_ops.sum_slots(rows, row_of_slot)
    for token, own in enumerate(row_of_slot):
        close(found[token], rows[own].sum(dim=0))


def test_slots_are_added_in_thirty_two_bits_where_they_have_sixteen() -> None:
    rows = torch.tensor([[256.0], [1], [1], [1]], dtype=torch.bfloat16)
    # 257 is no bf16, and would be 256; nor is 259, for which 260 is the nearest
    assert fused_ops.sum_slots(rows, torch.tensor([[0, 1, 2, 3]])).item() == 260


def test_rotary_is_transformers_rotary_embedding_with_its_gradient() -> None:
    from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import apply_rotary_pos_emb

    tokens, heads, size = 5, 3, 8
    x, grad = random(tokens, heads, size), random(tokens, heads, size, seed=1)
    angles = random(tokens, size // 2, seed=2) * 3
    found, wanted = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = fused_ops.apply_rotary(found, angles.cos(), angles.sin())
    both = torch.cat([angles, angles], dim=-1)
    own = wanted.transpose(0, 1)[None]
    usual, _ = apply_rotary_pos_emb(own, own, both.cos()[None], both.sin()[None])
    usual = usual[0].transpose(0, 1)
    close(out, usual)
    out.backward(grad)
    usual.backward(grad)
    close(found.grad, wanted.grad)


def test_the_loss_is_cross_entropy_s_and_leaves_its_gradient() -> None:
    logits = random(6, 40) * 4
    labels = torch.tensor([0, 39, NOT_COUNTED, 7, NOT_COUNTED, 7])
    wanted = exact(logits)
    total = F.cross_entropy(wanted, labels, reduction="sum")
    total.backward()
    found = fused_ops.loss_and_gradient(logits, labels)
    assert found.item() == pytest.approx(total.item(), rel=1e-6)
    close(logits, wanted.grad)
    assert not logits[[2, 4]].any()


def test_the_loss_over_logits_in_sixteen_bits_is_taken_in_thirty_two() -> None:
    logits, labels = (random(6, 4000) * 4).bfloat16(), torch.arange(6)
    wanted = F.cross_entropy(logits.double(), labels, reduction="sum").item()
    assert fused_ops.loss_and_gradient(logits, labels).item() == pytest.approx(wanted, rel=1e-5)
    assert logits.dtype == torch.bfloat16


WEIGHTS = torch.tensor([1.5, -2.0, 5, 0, float("inf"), -0.25])
"""Of either sign and none at all; those of the rows that are not counted do not matter."""


def test_a_weighted_loss_and_its_gradient_are_autograd_s() -> None:
    logits = random(6, 40) * 4
    labels = torch.tensor([0, 39, NOT_COUNTED, 7, NOT_COUNTED, 7])
    wanted, counted = exact(logits), labels != NOT_COUNTED
    total = (F.cross_entropy(wanted, labels, reduction="none")[counted] * WEIGHTS[counted].double()).sum()
    total.backward()
    found = fused_ops.loss_and_gradient(logits, labels, WEIGHTS)
    assert found.item() == pytest.approx(total.item(), rel=1e-6)
    close(logits, wanted.grad)
    assert not logits[[2, 3, 4]].any()


def test_the_weighted_gradient_is_the_slope_of_the_weighted_loss() -> None:
    logits, labels = (random(6, 40) * 4).double(), torch.tensor([0, 39, 2, 7, 3, 7])
    weights, step = WEIGHTS.nan_to_num(posinf=3), 0.05
    gradient = logits.float()
    fused_ops.loss_and_gradient(gradient, labels, weights)
    for row, column in ((0, 0), (1, 39), (1, 5), (3, 7), (5, 7)):
        around = []
        for sign in (1, -1):
            moved = logits.clone()
            moved[row, column] += sign * step
            around.append(fused_ops.loss_and_gradient(moved.float(), labels, weights).item())
        assert (around[0] - around[1]) / (2 * step) == pytest.approx(gradient[row, column].item(), abs=2e-3)


def test_weights_of_one_change_no_bit() -> None:
    plain, labels = random(6, 40) * 4, torch.tensor([0, 39, NOT_COUNTED, 7, 3, 7])
    weighted = plain.clone()
    losses = [fused_ops.loss_and_gradient(plain, labels), fused_ops.loss_and_gradient(weighted, labels, torch.ones(6))]
    assert torch.equal(*losses)
    assert torch.equal(plain, weighted)
