"""What stands between the products, as it is computed on a CPU, against torch's own operations and autograd in float64.

The kernels on CUDA are held against these, see `gpu/test_kernels.py`.
"""

import pytest
import torch
from torch.nn import functional as F

from ernie_pipeline.models.grouped import fused_ops as glue

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
def test_gated_and_its_gradients(weighted: bool) -> None:
    gate, up = random(ROWS, 2 * INNER).chunk(2, dim=1)  # views with longer rows, as the grouped products have them
    weight = random(ROWS, seed=1) if weighted else None
    grad = random(ROWS, INNER, seed=2)
    out, grads, again = (torch.full((ROWS, width), 7.0) for width in (INNER + 5, 2 * INNER + 5, INNER))
    glue.gated(gate, up, weight, out)
    of_weight = glue.gated_backward(gate, up, weight, grad, grads, again)

    g, u, w = exact(gate), exact(up), exact(torch.ones(ROWS) if weight is None else weight)
    wanted = w[:, None] * F.silu(g) * u
    wanted.backward(grad.double())
    close(out[:, :INNER], wanted)
    assert torch.equal(again, out[:, :INNER])
    assert (out[:, INNER:] == 7).all()  # the adapter's columns are somebody else's
    assert (grads[:, 2 * INNER :] == 7).all()
    assert g.grad is not None
    assert u.grad is not None
    close(grads[:, : 2 * INNER], torch.cat([g.grad, u.grad], dim=1))
    if weighted:
        close(of_weight, w.grad)
    else:
        assert of_weight is None


def test_gated_as_a_function_of_autograd_s() -> None:
    gate, up, grad = random(ROWS, INNER), random(ROWS, INNER, seed=1), random(ROWS, INNER, seed=2)
    found, wanted = [[t.clone().requires_grad_() for t in (gate, up)] for _ in range(2)]
    glue.Gated.apply(*found).backward(grad)  # type: ignore[no-untyped-call]
    (F.silu(wanted[0]) * wanted[1]).backward(grad)
    for one, other in zip(found, wanted, strict=True):
        close(one.grad, other.grad)


def test_summed_is_each_token_s_sum_over_its_rows() -> None:
    slots = random(12, 9)[:, :6]
    places = torch.randperm(12, generator=torch.Generator().manual_seed(2)).view(4, 3)
    found = glue.summed(slots, places)
    for token, rows in enumerate(places):
        close(found[token], slots[rows].sum(dim=0))


def test_summed_adds_sixteen_bits_in_thirty_two() -> None:
    slots = torch.tensor([[256.0], [1], [1], [1]], dtype=torch.bfloat16)
    # 257 is no bf16, and would be 256; nor is 259, for which 260 is the nearest
    assert glue.summed(slots, torch.tensor([[0, 1, 2, 3]])).item() == 260


def test_turned_is_transformers_rotary_embedding_with_its_gradient() -> None:
    from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import apply_rotary_pos_emb

    tokens, heads, size = 5, 3, 8
    x, grad = random(tokens, heads, size), random(tokens, heads, size, seed=1)
    angles = random(tokens, size // 2, seed=2) * 3
    found, wanted = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = glue.Rotated.apply(found, angles.cos(), angles.sin())  # type: ignore[no-untyped-call]
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
    labels = torch.tensor([0, 39, glue.NOT_COUNTED, 7, glue.NOT_COUNTED, 7])
    wanted = exact(logits)
    total = F.cross_entropy(wanted, labels, reduction="sum")
    total.backward()
    found = glue.loss_and_gradient(logits, labels)
    assert found.item() == pytest.approx(total.item(), rel=1e-6)
    close(logits, wanted.grad)
    assert not logits[[2, 4]].any()


def test_the_loss_over_logits_in_sixteen_bits_is_taken_in_thirty_two() -> None:
    logits, labels = (random(6, 4000) * 4).bfloat16(), torch.arange(6)
    wanted = F.cross_entropy(logits.double(), labels, reduction="sum").item()
    assert glue.loss_and_gradient(logits, labels).item() == pytest.approx(wanted, rel=1e-5)
    assert logits.dtype == torch.bfloat16
