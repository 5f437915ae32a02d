"""4-bit weights dequantized into a part of a buffer: the values of the paper's formula, and nothing beside them."""

from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped.dequantize import dequantize
from ernie_pipeline_tests.models.grouped.demo import FLAT, NESTED, stack


def by_formula(weight: Any) -> torch.Tensor:
    """Dettmers et al. 2023, "QLoRA", section 3, written out: two values a byte, the first one in the upper bits."""
    state = weight.quant_state
    constants = state.absmax.float()
    if state.nested:
        outer = state.state2
        blocks = torch.arange(len(state.absmax)) // outer.blocksize
        constants = outer.code[state.absmax.long()] * outer.absmax[blocks] + state.offset
    quantized = weight.data.flatten()
    codes = torch.stack([quantized >> 4, quantized & 15], dim=1).flatten().long()
    return (state.code[codes] * constants.repeat_interleave(state.blocksize)).view(state.shape)


@pytest.mark.parametrize("quantization", [FLAT, NESTED])
@pytest.mark.parametrize("shape", [(3, 10, 64), (3, 6, 96), (9, 128)])
@pytest.mark.parametrize("tail", [0, 16])
def test_dequantized_are_the_formula_s_values_and_the_tail_is_left_alone(
    quantization: dict[str, Any], shape: tuple[int, ...], tail: int
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    original = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight = stack(original, quantization)
    out = torch.full((*shape[:-1], shape[-1] + tail), 7.0)
    dequantize(weight, out)
    values, rest = out[..., : shape[-1]], out[..., shape[-1] :]
    assert torch.equal(values, dequantize_4bit(weight.data, weight.quant_state).view(shape))
    assert (values - by_formula(weight)).abs().max() < 1e-5
    assert torch.cosine_similarity(values.flatten(), original.flatten(), dim=0) > 0.99
    assert (rest == 7).all()


def test_between_the_experts_there_may_be_other_rows() -> None:
    weight = stack(torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(0)), FLAT)
    out = torch.full((3, 6, 72), 7.0)
    dequantize(weight, out[:, :4])
    assert torch.equal(out[:, :4, :64], by_formula(weight))
    assert (out[:, 4:] == 7).all()


def test_it_dequantizes_into_sixteen_bits() -> None:
    weight = stack(torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(0)), FLAT)
    out = torch.full((2, 4, 72), 7.0, dtype=torch.bfloat16)
    dequantize(weight, out)
    assert torch.equal(out[..., :64], by_formula(weight).bfloat16())
