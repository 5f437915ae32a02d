from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.peft.experts import unfuse_experts

ATOL = 1e-5  # fp32: the same products, summed by other kernels


def fused_model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """transformers' own model and its copy with the experts taken apart."""
    unfused = fused_model()
    assert unfuse_experts(unfused) == 5  # six layers, the first one dense
    return fused_model(), unfused


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 33), (2, 200)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_logits_are_those_of_transformers(pair: tuple[Any, Any], shape: tuple[int, int], seed: int) -> None:
    ids = torch.randint(3, 768, shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        wanted, got = (model(input_ids=ids, use_cache=False).logits for model in pair)
    torch.testing.assert_close(got, wanted, atol=ATOL, rtol=0)


def test_the_gradient_that_reaches_the_first_layer_is_the_same(pair: tuple[Any, Any]) -> None:
    ids = torch.randint(3, 768, (2, 40), generator=torch.Generator().manual_seed(3))
    gradients = []
    for model in pair:
        model.model.embed_tokens.weight.grad = None
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append(model.model.embed_tokens.weight.grad)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], atol=ATOL, rtol=0)


def test_names_and_weights_of_all_projections_are_those_of_the_checkpoint_on_disk(pair: tuple[Any, Any]) -> None:
    from safetensors.torch import load_file

    on_disk, in_memory = (
        {name: weight for name, weight in weights.items() if "_proj" in name}
        for weights in (load_file(BASE / "model.safetensors"), pair[1].state_dict())
    )
    assert "model.layers.1.mlp.experts.0.gate_proj.weight" in on_disk
    assert in_memory.keys() == on_disk.keys()
    for name, weight in on_disk.items():
        assert torch.equal(in_memory[name], weight.float()), name


def test_nothing_fused_is_left_and_a_second_time_finds_nothing(pair: tuple[Any, Any]) -> None:
    assert all(parameter.ndim < 3 for parameter in pair[1].parameters())
    assert unfuse_experts(pair[1]) == 0
