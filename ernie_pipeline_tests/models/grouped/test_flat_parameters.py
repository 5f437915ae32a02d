"""The adapter as one vector: the same steps as with separate parameters, in memory that stays where it is."""

import pytest
import torch
from torch import nn

from ernie_pipeline.models.grouped.flat_parameters import FlatParameters


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False))


def backward(model: nn.Module, seed: int) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    model(x).square().sum().backward()


def test_parameters_and_gradients_are_views_of_one_vector_each() -> None:
    own, whole = model(), model()
    flat = FlatParameters(list(own.parameters()))
    assert flat.values.shape == (5 * 7 + 7 + 7 * 3,)
    assert torch.equal(flat.values, torch.cat([p.flatten() for p in whole.parameters()]))
    assert [p.shape for p in own.parameters()] == [p.shape for p in whole.parameters()]
    with torch.no_grad():
        flat.values[35] = 9  # the first bias
        own[2].weight[2, 6] = 8
    assert own[0].bias[0].item() == 9
    assert flat.values[-1].item() == 8

    flat.clear_gradients()
    addresses = [p.grad.data_ptr() for p in own.parameters() if p.grad is not None]
    for passes in (1, 2):
        flat.clear_gradients()
        own.load_state_dict(whole.state_dict())
        whole.zero_grad()
        for seed in range(passes):
            backward(own, seed)
            backward(whole, seed)
        wanted = torch.cat([p.grad.flatten() for p in whole.parameters() if p.grad is not None])
        assert flat.values.grad is flat.gradients
        assert torch.equal(flat.gradients, wanted)
        assert [p.grad.data_ptr() for p in own.parameters() if p.grad is not None] == addresses


def test_bound_again_what_was_moved_is_a_view_with_the_values_that_it_has_now() -> None:
    own = model()
    flat = FlatParameters(list(own.parameters()))
    with torch.no_grad():
        own[0].bias.data = own[0].bias.data + 1
        own[2].weight.fill_(2)
    wanted = [parameter.detach().clone() for parameter in own.parameters()]
    for _ in range(2):
        flat.bind()
        assert all(torch.equal(p, value) for p, value in zip(own.parameters(), wanted, strict=True))
        assert torch.equal(flat.values, torch.cat([value.flatten() for value in wanted]))
    with torch.no_grad():
        flat.values.zero_()
    assert not any(parameter.any() for parameter in own.parameters())


def test_gradients_that_somebody_took_away_are_there_again_after_clearing() -> None:
    own = model()
    flat = FlatParameters(list(own.parameters()))
    flat.clear_gradients()
    backward(own, 0)
    wanted = flat.gradients.clone()
    own.zero_grad()
    backward(own, 1)  # into memory of its own
    flat.clear_gradients()
    backward(own, 0)
    assert torch.equal(flat.gradients, wanted)


@pytest.mark.parametrize("frozen", [False, True])
def test_clipped_steps_are_those_of_separate_parameters(frozen: bool) -> None:
    """A parameter without a gradient is one with a gradient of zero, and only decays."""
    own, whole = model(), model()
    flat = FlatParameters(list(own.parameters()))
    settings = {"lr": 0.1, "weight_decay": 0.1}
    together, apart = torch.optim.AdamW([flat.values], **settings), torch.optim.AdamW(whole.parameters(), **settings)
    for step in range(4):
        flat.clear_gradients()
        whole.zero_grad()
        backward(own, step)
        backward(whole, step)
        if frozen:
            for one in (own, whole):
                assert one[0].bias.grad is not None
                one[0].bias.grad.zero_()
        norms = [
            torch.nn.utils.clip_grad_norm_(parameters, 0.5) for parameters in ([flat.values], list(whole.parameters()))
        ]
        assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-5)
        assert norms[0] > 0.5
        together.step()
        apart.step()
        for one, other in zip(own.parameters(), whole.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(own[0].weight, model()[0].weight, atol=0.1)
