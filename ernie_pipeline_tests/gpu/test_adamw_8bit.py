"""Our step of the 8-bit AdamW on CUDA against that of bitsandbytes, from whose states it goes on and the other way."""

import pytest
import torch
from bitsandbytes.optim import AdamW

from ernie_pipeline.training.optimizer.adamw_8bit import AdamW8bit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
]


@pytest.mark.parametrize("size", [256 * 1000, 256 * 37 + 100])
def test_values_and_states_are_those_of_bitsandbytes(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, generator=generator)
    parameters = [torch.nn.Parameter(start.clone().cuda()) for _ in range(2)]
    settings = {"lr": 1e-2, "weight_decay": 0.01, "optim_bits": 8}
    ours, theirs = (kind([own], **settings) for kind, own in zip((AdamW8bit, AdamW), parameters, strict=True))
    for number in range(5):
        gradient = torch.randn(size, generator=generator) * 10 ** torch.empty(size).uniform_(-4, 0, generator=generator)
        gradient[: 256 * number] = 0
        for parameter in parameters:
            parameter.grad = gradient.cuda()
        before = parameters[0].detach().clone()
        ours.step()
        theirs.step()
        own, other = ours.state[parameters[0]], theirs.state[parameters[1]]
        # theirs has the bias correction, 1 - 0.999^2 at first, by a power in fp32: four digits of a step
        change, value = (parameters[1] - before).abs(), parameters[1].abs()
        assert ((parameters[0] - parameters[1]).abs() <= 1e-4 * change + 1e-6 * (1 + value)).all()
        for name in ("state1", "state2"):
            apart = (own[name].int() - other[name].int()).abs()
            assert apart.max() <= 1, name  # half way between two codes
            assert (apart != 0).float().mean() < 1e-3, name
        for name in ("absmax1", "absmax2"):
            torch.testing.assert_close(own[name], other[name], rtol=1e-5, atol=0)
        ours.load_state_dict(theirs.state_dict())
        parameters[0].data.copy_(parameters[1].data)
