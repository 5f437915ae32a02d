"""What vLLM is given is the model that answers here: the names of a checkpoint, and the weights that `merge` makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.generation.merged import merge
from ernie_pipeline.models.generation.vllm.weights import checkpoint_tensors
from ernie_pipeline_tests.models.conftest import logits_of, new_adapted
from ernie_pipeline_tests.models.grouped.demo import FLAT, adapted_grouped, quantize_demo, read_demo

IDS = torch.arange(5, 60)


@pytest.fixture(scope="module")
def adapted() -> Any:
    return new_adapted()


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("quantized")
    quantize_demo(folder, FLAT)
    return adapted_grouped(read_demo(folder, FLAT))


def test_names_and_shapes_are_those_of_the_checkpoint_and_none_comes_twice(adapted: Any) -> None:
    given = [(name, tuple(tensor.shape)) for name, tensor in checkpoint_tensors(adapted)]
    wanted = {name: tuple(tensor.shape) for name, tensor in load_file(BASE / "model.safetensors").items()}
    assert dict(given) == wanted
    assert len(given) == len(wanted)


def test_a_model_s_own_output_layer_is_given_and_a_tied_one_is_not(tiny: Any) -> None:
    tied = tiny.config.tie_word_embeddings
    try:
        names = {}
        for own in (True, False):
            tiny.config.tie_word_embeddings = own
            names[own] = {name for name, _ in checkpoint_tensors(tiny)}
    finally:
        tiny.config.tie_word_embeddings = tied
    assert names[False] - names[True] == {"lm_head.weight"}


@pytest.mark.parametrize("kind", ["adapted", "grouped"])
def test_a_checkpoint_of_them_is_the_merged_model(kind: str, request: pytest.FixtureRequest, checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = request.getfixturevalue(kind)
    given = {name: tensor.contiguous().clone() for name, tensor in checkpoint_tensors(model)}
    save_file(given, checkpoint / "model.safetensors", metadata={"format": "pt"})
    read, loading = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    torch.testing.assert_close(logits_of(read, IDS), logits_of(merge(model), IDS), atol=1e-4, rtol=0)
    assert (logits_of(read, IDS) - logits_of(AutoModelForCausalLM.from_pretrained(BASE), IDS)).abs().max() > 0.1


def test_a_switched_off_adapter_is_left_out(adapted: Any) -> None:
    with adapted.disable_adapter():
        without = dict(checkpoint_tensors(adapted))
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    assert not torch.equal(without[name], dict(checkpoint_tensors(adapted))[name])
