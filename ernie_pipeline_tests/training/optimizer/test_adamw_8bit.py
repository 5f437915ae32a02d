"""The step of the 8-bit AdamW, without a GPU: in Triton's interpreter, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch
from bitsandbytes.optim import AdamW

from ernie_pipeline.training.optimizer.adamw_8bit import AdamW8bit


def test_a_step_finds_the_nearest_code_of_every_value() -> None:
    pytest.importorskip("triton", reason="needs the package triton: the extra dev, on Linux")
    command = [sys.executable, "-m", "ernie_pipeline_tests.training.optimizer.interpreted"]
    ended = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    steps = json.loads(ended.stdout.splitlines()[-1])
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
