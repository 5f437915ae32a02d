"""Every kernel computes what its reference does, without a GPU: in Triton's interpreter, in a process of its own."""

import re
from pathlib import Path

import pytest

from ernie_pipeline_tests.in_triton_s_interpreter import told_by

MODULES = ("kernels", "nf4_kernels", "adapter_kernels", "fp8_kernels", "dense_kernels")
INNER = {
    "tile_of_expert",
    "values_of_blocks",
    "_values",
    "_low_rank",
    "_product",
    "_rounded",
    "_part_of_A",
    "_part_of_B",
}
"""What kernels call."""


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = told_by("ernie_pipeline_tests.models.grouped.interpreted")
    return found


def test_what_kernels_give_is_what_torch_gives(told: dict[str, dict[str, float]]) -> None:
    assert {name: own["apart"] for name, own in told.items() if own["apart"] > 1e-6} == {}


def test_no_kernel_is_left_out(told: dict[str, dict[str, list[str]]]) -> None:
    import ernie_pipeline.models.grouped as grouped

    texts = [(Path(grouped.__path__[0]) / f"{module}.py").read_text() for module in MODULES]
    kernels = {name for text in texts for name in re.findall(r"^@triton\.jit.*\ndef (\w+)", text, re.MULTILINE)}
    assert {kernel for own in told.values() for kernel in own["kernels"]} == kernels - INNER
