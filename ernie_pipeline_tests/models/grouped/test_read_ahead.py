"""A quantized base that is read before it is asked for: the same model, and nothing that was not intact."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.grouped import quantized_base as quantized
from ernie_pipeline.models.grouped import read_ahead
from ernie_pipeline.models.grouped.read_ahead import begin_to_read, what_was_read
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.store.quantized_base import damage
from ernie_pipeline_tests.models.grouped.demo import FLAT


@pytest.fixture
def spec(short_base: Any, tmp_path: Path) -> ModelSpec:
    quantization = Quantization.model_validate(FLAT)
    return ModelSpec(backend="grouped", base=short_base, quantization=quantization, quantized_bases=tmp_path / "bases")


def made(spec: ModelSpec) -> Path:
    """Its quantized base, made if it is not there."""
    config = causal_lm_config(spec.base.checkpoint, None)
    quantization = spec.quantization.model_dump(mode="json")
    return quantized.quantized_base(spec.base, config, quantization, spec.quantized_bases, "cpu")


def loaded(spec: ModelSpec) -> Any:
    config = causal_lm_config(spec.base.checkpoint, None)
    quantization = spec.quantization.model_dump(mode="json")
    return quantized.load_quantized(spec.base, config, quantization, spec.quantized_bases, "cpu")


def test_what_was_read_ahead_is_the_base_and_is_given_once(spec: ModelSpec) -> None:
    place = made(spec)
    begin_to_read(spec, "cpu")
    assert what_was_read(place, "cuda:0") is None
    found = what_was_read(place, "cpu")
    wanted = {name: tensor for file in place.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert found is not None
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert what_was_read(place, "cpu") is None


def test_a_model_of_what_was_read_ahead_is_the_model_and_reads_nothing_again(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(spec)
    usual = loaded(spec)

    def read(*given: Any) -> Any:
        pytest.fail("it is read again")

    monkeypatch.setattr(quantized, "read_tensors", read)
    begin_to_read(spec, "cpu")
    ahead = dict(loaded(spec).named_parameters())
    assert all(torch.equal(ahead[name], parameter) for name, parameter in usual.named_parameters())


def cut(place: Path) -> None:
    file = place / "rest.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def remove(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))


@pytest.mark.parametrize("damage_it", [cut, remove])
def test_one_that_is_damaged_or_not_there_is_made_as_without(spec: ModelSpec, damage_it: Callable[[Path], Any]) -> None:
    place = made(spec)
    damage_it(place)
    begin_to_read(spec, "cpu")
    assert loaded(spec) is not None
    assert damage(place) == ""


def test_where_reading_fails_or_takes_long_who_needs_it_gets_it_all_the_same(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(spec)

    def fail(*given: Any) -> Any:
        time.sleep(0.2)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(read_ahead, "read_tensors", fail)
    begin_to_read(spec, "cpu")
    assert loaded(spec) is not None
