"""The step of the 8-bit AdamW, without a GPU: in Triton's interpreter, in a process of its own."""

import torch
from bitsandbytes.optim import AdamW

from ernie_pipeline.training.optimizer.adamw_8bit import AdamW8bit
from ernie_pipeline_tests.in_triton_s_interpreter import told_by


def test_a_step_finds_the_nearest_code_of_every_value() -> None:
    steps = told_by("ernie_pipeline_tests.training.optimizer.interpreted")
    assert len(steps) == 4
    assert max(step["apart"] for step in steps) < 1e-6
    assert sum(step["codes"] for step in steps) <= 2  # half way between two, where rounding decides


def test_on_a_cpu_it_is_bitsandbytes_own() -> None:
    start, gradient = torch.randn(8192), torch.randn(8192)
    parameters = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    for kind, parameter in zip((AdamW8bit, AdamW), parameters, strict=True):
        optimizer = kind([parameter], lr=1e-2, optim_bits=8)
        parameter.grad = gradient
        optimizer.step()
        assert optimizer.state[parameter]["state1"].dtype == torch.uint8
    assert torch.equal(*parameters)
