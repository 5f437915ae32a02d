"""Which engine a recipe's `training.engine` stands for, by this machine and the recipe's quantisation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline import models as engines
from ernie_pipeline.models import ENGINES, choose_engine, engine_module, engine_name
from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.utils.errors import PipelineError

SET = 'set it to "auto" or "peft"'
RECIPE = Quantization().model_dump(mode="json")
MODULES = {"peft": peft_engine, "unsloth": unsloth_engine}
"""Imported before a test pretends that there is a CUDA device, which bitsandbytes would look for."""

Machine = Callable[[bool, bool], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with or without a CUDA device and the package unsloth."""

    def make(cuda: bool, package: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        if package:
            (tmp_path / "unsloth").mkdir()
            (tmp_path / "unsloth" / "__init__.py").write_text(
                "raise AssertionError('imported to see whether it is there')"
            )
            monkeypatch.syspath_prepend(tmp_path)
        else:
            monkeypatch.setattr(engines, "find_spec", lambda name: None)

    return make


def refused(quantization: dict[str, Any] = RECIPE) -> str:
    with pytest.raises(PipelineError) as told:
        choose_engine("unsloth", quantization)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_each_engine_is_a_module_that_is_found_by_its_name_and_has_the_same_functions(machine: Machine) -> None:
    machine(True, True)
    files = Path(engines.__file__).parent.glob("*/backend.py")
    assert len([*files]) == len(ENGINES)
    asked = ("base_of", "add_adapter", "save_adapter", "load_adapter", "load", "logits", "check_model", "end_to_end")
    for name in ENGINES:
        module = engine_module(name, RECIPE)
        assert module is MODULES[name]
        assert engine_name(module) == name
        assert [part for part in (*asked, "causal_lm_config") if not hasattr(module, part)] == []


@pytest.mark.parametrize(("cuda", "package"), [(False, False), (False, True), (True, False), (True, True)])
def test_auto_is_unsloth_where_a_gpu_and_the_package_are(machine: Machine, cuda: bool, package: bool) -> None:
    machine(cuda, package)
    wanted = "unsloth" if cuda and package else "peft"
    assert choose_engine("auto", RECIPE) == choose_engine("auto") == wanted
    assert engine_name(engine_module("auto", RECIPE)) == wanted
    assert choose_engine("peft", RECIPE) == "peft"


@pytest.mark.parametrize(("name", "value"), [("type", "fp4"), ("double", False), ("compute_dtype", "float32")])
def test_another_quantisation_than_unsloth_s_is_peft_s(machine: Machine, name: str, value: Any) -> None:
    machine(True, True)
    assert choose_engine("unsloth", RECIPE) == "unsloth"
    other = RECIPE | {name: value}
    assert choose_engine("auto", other) == "peft"
    assert refused(other) == (
        f'training.engine = "unsloth" makes quantization.{name} = {RECIPE[name]!r}, and the recipe asks for {value!r}; '
        f"{SET}"
    )


def test_unsloth_without_a_gpu_is_told_in_one_sentence(machine: Machine) -> None:
    machine(False, True)
    assert refused() == f'training.engine = "unsloth" needs a CUDA device, and this machine shows none; {SET}'


def test_unsloth_without_its_package_is_told_with_what_installs_it(machine: Machine) -> None:
    machine(True, False)
    assert refused() == (
        'training.engine = "unsloth" needs the package unsloth, which is not installed here: '
        f'pip install "ernie_pipeline[gpu]"; {SET}'
    )
